"""FocalNet as a backbone in mmengine's registry."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule, initialize
from mmengine.registry import MODELS
from torch import Tensor

from focalnet_backbone.checkpoints import CheckpointError, load_checkpoint
from focalnet_backbone.fast.layout import lay_out_for_heads
from focalnet_backbone.network import backbone
from focalnet_backbone.network.config import FocalNetConfig
from focalnet_backbone.openmmlab.losses import mend_cross_entropy
from focalnet_backbone.openmmlab.weights import read_weights
from focalnet_backbone.system.switches import check_switch

RENAMED = {
    "use_postln": "use_post_layernorm",
    "use_postln_in_modulation": "use_post_layernorm_in_modulation",
    "in_chans": "num_channels",
    "drop_rate": "hidden_dropout_prob",
    "use_checkpoint": "with_cp",
}
"""Keyword arguments of the reference release, and their names here."""

WITHOUT_EFFECT = ("pretrain_img_size", "patch_norm")
"""Keyword arguments of the reference release that change nothing in the model."""


@MODELS.register_module()
class FocalNet(backbone.FocalNet, BaseModule):
    """FocalNet for the necks and heads of mmsegmentation, mmdetection and their relatives.

    It takes the keyword arguments of the reference release too, with a `FutureWarning` that gives the new spelling.

    Args:
        variant: a published model whose knobs are the defaults, for example `"focalnet_tiny_srf"`.
        out_indices: stages whose maps are returned, counted from 0; all by default.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages with their output norms.
        with_cp: recompute blocks in the backward pass instead of keeping their activations.
        init_cfg: how to initialise. `dict(type="Pretrained", checkpoint=...)` takes whatever
            `focalnet_backbone.load_checkpoint` takes (a file, a variant's name, a hub id, an address), and the
            `prefix` of the backbone's weights in a file that holds more.
        **knobs: knobs of `FocalNetConfig`, such as `embed_dim`, `depths`, `focal_windows`, `drop_path_rate`.

    Raises:
        KeyError: there is no such variant.
        ValueError, TypeError: a knob is wrong; the message names it and what is allowed.
    """

    def __init__(
        self,
        variant: str | None = None,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
        **knobs: Any,
    ) -> None:
        mend_cross_entropy()  # A segmentor builds its backbone first, and its losses after.
        knobs = _translate_release({"with_cp": with_cp, "init_cfg": init_cfg}, knobs)
        with_cp, init_cfg = knobs.pop("with_cp"), knobs.pop("init_cfg")
        check_switch("with_cp", with_cp)
        if "out_features" in knobs:
            raise TypeError("this FocalNet is told its outputs by out_indices (0 is the first stage), not out_features")
        config = FocalNetConfig() if variant is None else FocalNetConfig.from_variant(variant)
        config = config.replace(**knobs)
        super().__init__(
            config,
            out_indices=_count_with_stem(out_indices, len(config.depths)),
            frozen_stages=frozen_stages,
            use_checkpoint=with_cp,
        )
        self.init_cfg = init_cfg

    def init_weights(self) -> None:
        """Initialise the weights as `init_cfg` says. mmengine's runner calls this before training.

        Raises:
            CheckpointError: the pretrained weights cannot be had or do not fit.
        """
        super().init_weights()
        initializers = [self.init_cfg] if isinstance(self.init_cfg, dict) else self.init_cfg or []
        pretrained = [cfg for cfg in initializers if cfg["type"] == "Pretrained"]
        others = [cfg for cfg in initializers if cfg["type"] != "Pretrained"]
        if others:
            initialize(self, others)
        for cfg in pretrained:
            _load_pretrained(self, **{key: value for key, value in cfg.items() if key != "type"})

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images `(N, C, H, W)` to one map `(N, C_i, H_i, W_i)` for each of `out_indices`, finest first."""
        return tuple(map(lay_out_for_heads, super().forward(x).values()))

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """The depth of a parameter's layer, for learning rates that decay with it.

        The stem has depth 0 and every block one more than the block before. A stage's downsampling and output norm
        belong to its last block. What follows the backbone has the largest depth.

        Args:
            param_name: name of the parameter in the whole model.
            prefix: what the names of the backbone's parameters begin with there, `"backbone."` for example.

        Returns:
            The depth, and the number of depths there are: that of the parameters outside the backbone, plus 1.
        """
        depths = self.config.depths
        count = sum(depths) + 2
        if not param_name.startswith(prefix):
            return count - 1, count
        match param_name[len(prefix) :].split("."):
            case ["patch_embed", *_]:
                return 0, count
            case ["layers", stage, "blocks", block, *_]:
                return sum(depths[: int(stage)]) + int(block) + 1, count
            case ["layers", stage, "downsample", *_]:
                return sum(depths[: int(stage) + 1]), count
            case [norm, *_] if norm.startswith("norm"):
                return sum(depths[: int(norm.removeprefix("norm")) + 1]), count
        return count - 1, count


def _translate_release(arguments: dict[str, Any], knobs: dict[str, Any]) -> dict[str, Any]:
    """`arguments` updated by `knobs`, with the keyword arguments of the reference release under their names here."""
    translated, notes = dict(arguments), []
    for name, value in knobs.items():
        if RENAMED.get(name) in knobs:
            raise TypeError(f"{name} is the old name of {RENAMED[name]}; give one of them")
        if name in RENAMED:
            notes.append(f"{name} is now {RENAMED[name]}")
            translated[RENAMED[name]] = value
        elif name in WITHOUT_EFFECT:
            notes.append(f"{name} has no effect")
        elif name == "pretrained" and value is not None:
            notes.append("pretrained is now init_cfg=dict(type='Pretrained', checkpoint=...)")
            translated["init_cfg"] = {"type": "Pretrained", "checkpoint": value}
        elif name != "pretrained":
            translated[name] = value
    if not knobs.get("patch_norm", True):
        raise ValueError("patch_norm must be True: this FocalNet always has a LayerNorm after each patch embedding")
    if notes:
        warnings.warn(f"FocalNet's arguments have changed: {', '.join(notes)}", FutureWarning, stacklevel=3)
    return translated


def _count_with_stem(out_indices: Sequence[int] | None, stages: int) -> list[int]:
    """Indices that count stages from 0 as the core backbone counts them, with the stem before."""
    if out_indices is None:
        return list(range(1, stages + 1))
    if not isinstance(out_indices, Sequence) or isinstance(out_indices, str):
        raise TypeError(f"out_indices must be a list of stages, from 0 to {stages - 1}, got {out_indices!r}")
    if any(type(index) is not int or not 0 <= index < stages for index in out_indices):
        raise ValueError(f"out_indices must be from 0 (the first stage) to {stages - 1}, got {list(out_indices)}")
    return [index + 1 for index in out_indices]


def _load_pretrained(model: FocalNet, checkpoint: str, prefix: str | None = None, map_location: str = "cpu") -> None:
    named_by_mmengine = "://" in checkpoint and not checkpoint.startswith(("http://", "https://"))
    if prefix is None and not named_by_mmengine:
        load_checkpoint(model, checkpoint)
        return
    weights, _ = read_weights(checkpoint)
    prefix = "" if prefix is None else prefix.rstrip(".") + "."
    source = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    if not source:
        raise CheckpointError(f"{checkpoint} has no tensor whose name begins with {prefix}")
    try:
        load_checkpoint(model, source)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint}: {error}") from error
