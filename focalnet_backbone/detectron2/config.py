"""What FocalNet and its recipe add to detectron2's `CfgNode`."""

from __future__ import annotations

from dataclasses import fields

from detectron2.config import CfgNode

from focalnet_backbone.network.config import FocalNetConfig

_NOT_OF_THE_BACKBONE = {
    "hidden_sizes",
    "out_features",
    "out_indices",
    "num_labels",
    "id2label",
    "label2id",
    "problem_type",
    "output_hidden_states",
    "return_dict",
}
KNOBS = [f.name for f in fields(FocalNetConfig) if f.init and f.name not in _NOT_OF_THE_BACKBONE]
"""The architecture knobs of `FocalNetConfig`; in upper case they are the keys of `MODEL.FOCALNET`."""


def add_focalnet_config(cfg: CfgNode) -> None:
    """Add FocalNet's keys to a config; those that are there already, maybe of another project, keep their values.

    `MODEL.FOCALNET` takes every architecture knob of `FocalNetConfig` in upper case. None stands for the value of
    `VARIANT`, or for the default of `FocalNetConfig` when no variant is named. Besides:

    - `MODEL.FOCALNET.OUT_FEATURES`: which of stem, stage1, ... stage4 the backbone returns; res2 to res5 are other
      names of the stages, and maps come under the names that are given here.
    - `MODEL.FOCALNET.WEIGHTS`: what the backbone starts from whenever it is built, as `load_checkpoint` takes it. For
      projects whose checkpointer does not read these; ours reads `MODEL.WEIGHTS`.
    - `MODEL.FOCALNET.FREEZE_AT`: counts as `MODEL.BACKBONE.FREEZE_AT` does: 0 freezes nothing, 1 the stem, k the
      stem and the first k - 1 stages.
    - `MODEL.FOCALNET.USE_CHECKPOINT`: recompute blocks in the backward pass instead of keeping their activations.
    - `SOLVER.OPTIMIZER`: "SGD", as detectron2 has it, or "ADAMW" with `SOLVER.BETAS`.
    - `INPUT.DETR_CROP`: resize and crop with probability `PROB` before the resizing that `INPUT` asks for anyway;
      the short side becomes one of `MIN_SIZE_TRAIN`, and the crop's sides are drawn between the two of `SIZE`.
    - `DATASETS.OWN`: datasets that our trainer makes known to detectron2, as its command line names them.
    - `TEST.BEST_METRIC`: the metric by which the best checkpoint is kept.
    """
    focalnet = {name.upper(): None for name in KNOBS}
    focalnet |= {"VARIANT": "", "OUT_FEATURES": ["stage1", "stage2", "stage3", "stage4"]}
    focalnet |= {"FREEZE_AT": 0, "USE_CHECKPOINT": False, "WEIGHTS": ""}
    crop = {"ENABLED": False, "PROB": 0.5, "MIN_SIZE_TRAIN": (400, 500, 600), "SIZE": (384, 600)}
    cfg.MODEL.setdefault("FOCALNET", CfgNode(focalnet))
    cfg.SOLVER.setdefault("OPTIMIZER", "SGD")
    cfg.SOLVER.setdefault("BETAS", (0.9, 0.999))
    cfg.INPUT.setdefault("DETR_CROP", CfgNode(crop))
    cfg.DATASETS.setdefault("OWN", [])
    cfg.TEST.setdefault("BEST_METRIC", "bbox/AP")
