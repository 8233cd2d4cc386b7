"""Models of mmsegmentation and mmdetection as plain modules, whose sizes exporters keep free."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from focalnet_backbone.openmmlab.deploy.photos import read_normalising, read_preparation
from focalnet_backbone.openmmlab.deploy.segmenters import SegmentorGraph
from focalnet_backbone.openmmlab.predict import category_ids, load_model
from focalnet_backbone.openmmlab.runners import load_config, require


def open_graph(config: str | Path, weights: str | Path, photos: bool) -> tuple[nn.Module, dict[str, Any]]:
    """The model of a config, with trained weights, as a module with names as `Exportable` has, and its metadata.

    Args:
        config: config file of mmsegmentation or mmdetection.
        weights: checkpoint of the whole model.
        photos: whether the module takes photos, rather than normalised images.

    Raises:
        FileNotFoundError, CheckpointError: as `load_model` does.
        ValueError: the model or its test pipeline does what a file cannot hold.
    """
    cfg = load_config(config)
    require(cfg, "model", "test_dataloader")
    model, meta = load_model(cfg, weights, "cpu")
    told = {
        "classes": list(meta["classes"]),
        "palette": [list(colour) for colour in meta["palette"]],
        **read_normalising(model),
    }
    how = None
    if photos:
        how = read_preparation(cfg, model)
        told |= {"fit": how.fit}
    if "decode_head" in cfg.model:
        return SegmentorGraph(model, how).eval(), told
    if cfg.get("default_scope") != "mmdet":
        raise ValueError(f"{Path(config).name}: no segmenter or detector; --backbone exports the backbone")
    if not photos:
        raise ValueError(
            f"{Path(config).name}: a detector takes photos, whose size its boxes are in; leave out --tensor"
        )
    ids = {"category_ids": category_ids(cfg, told["classes"])}
    if "panoptic_head" in cfg.model:
        from focalnet_backbone.openmmlab.deploy.mask2former import InstanceGraph, PanopticGraph

        if model.panoptic_fusion_head.test_cfg.get("panoptic_on", True):
            return PanopticGraph(model, how).eval(), told
        return InstanceGraph(model, how).eval(), {**told, **ids, "masks": "photo"}
    from focalnet_backbone.openmmlab.deploy.detectors import DetectorGraph

    return DetectorGraph(model, how).eval(), {**told, **ids}
