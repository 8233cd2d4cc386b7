"""FocalNet as a detectron2 `Backbone`, alone and under a feature pyramid network."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from torch import Tensor, nn

from focalnet_backbone.checkpoints import load_checkpoint
from focalnet_backbone.detectron2.config import KNOBS, add_focalnet_config
from focalnet_backbone.fast.layout import lay_out_for_heads
from focalnet_backbone.network.backbone import FocalNet
from focalnet_backbone.network.config import FocalNetConfig

logger = logging.getLogger(__name__)


class FocalNetBackbone(FocalNet, Backbone):
    """`FocalNet` with detectron2's interface; the names in its state dict are the release's own.

    Maps images `(N, C, H, W)` to a dict of `(N, C_i, H / s_i, W / s_i)` with the names of `out_features`.

    Args:
        variant: name of a published model whose architecture to take; None for the defaults of `FocalNetConfig`.
        out_features: names of the feature maps to return; None for all stages. `"res2"` to `"res5"`, as the maps of
            detectron2's ResNets are called, are other names of `"stage1"` to `"stage4"`; a map comes under the name
            that is asked for.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and stages 1 to k.
        use_checkpoint: recompute blocks in the backward pass instead of keeping their activations.
        **knobs: other knobs of `FocalNetConfig`, in place of the variant's.

    Raises:
        KeyError: there is no such variant.
        ValueError, TypeError: a knob is wrong; the message names it and what is allowed.
    """

    def __init__(
        self,
        variant: str | None = None,
        *,
        out_features: Sequence[str] | None = None,
        frozen_stages: int = -1,
        use_checkpoint: bool = False,
        **knobs: Any,
    ) -> None:
        config = FocalNetConfig.from_variant(variant, **knobs) if variant else FocalNetConfig(**knobs)
        names = config.stage_names[1:] if out_features is None else out_features
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise TypeError(f"out_features must be a list of names, got {names!r}")
        own_names = [own if (own := to_stage_name(name)) in config.stage_names else name for name in names]
        super().__init__(config, out_features=own_names, frozen_stages=frozen_stages, use_checkpoint=use_checkpoint)
        asked_for = dict(zip(own_names, names, strict=True))
        self.out_features = [asked_for[name] for name in self.config.out_features]

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Map images `(N, C, H, W)` to feature maps `(N, C_i, H_i, W_i)` under the names of `out_features`."""
        maps = map(lay_out_for_heads, super().forward(pixel_values).values())
        return dict(zip(self.out_features, maps, strict=True))

    @property
    def size_divisibility(self) -> int:
        """The largest stride: images padded to a multiple of it have maps of exactly half the size at each stage."""
        return max(self.strides.values())

    @property
    def padding_constraints(self) -> dict[str, int]:
        """`size_divisibility` in the form that detectron2's meta-architectures read."""
        return {"size_divisibility": self.size_divisibility}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature map, by name. What asks for a map that there is not is told so."""
        return _Maps(
            (name, ShapeSpec(channels=channels, stride=self.strides[name])) for name, channels in self.channels.items()
        )


class _Maps(dict[str, ShapeSpec]):
    def __missing__(self, name: str) -> ShapeSpec:
        raise KeyError(f"the backbone gives no map {name!r}, but {', '.join(self)}")


def freeze_unread(model: nn.Module) -> None:
    """Take out of training what a model's FocalNet has for maps that no FPN or head reads, and say so in one line."""
    backbones = [module for module in model.modules() if isinstance(module, FocalNetBackbone)]
    readers = [module for module in model.modules() if isinstance(module, FPN) and module.bottom_up in backbones]
    # Above an FPN, modules ask for its maps. How a part of another project reads maps, nobody knows.
    if not readers and not all(type(module).__module__.startswith(_KNOWN) for module in model.modules()):
        return
    modules = [part for fpn in readers for part in (fpn, fpn.top_block)] if readers else model.modules()
    asked = {name for module in modules for key in _READING for name in _names(getattr(module, key, ()))}
    for backbone in backbones:
        unread = backbone.freeze_unread(asked & set(backbone.out_features))
        if unread:
            logger.warning(
                "no FPN or head reads %s of the backbone (of %s): what is for them alone is not trained; "
                "OUT_FEATURES can leave them out",
                ", ".join(unread),
                ", ".join(backbone.out_features),
            )


_KNOWN = ("detectron2.", "focalnet_backbone.", "fvcore.", "torch.", "torchvision.")
"""Packages whose modules say by `_READING` which maps they read."""

_READING = (
    "in_features",
    "in_feature",
    "box_in_features",
    "mask_in_features",
    "keypoint_in_features",
    "head_in_features",
)
"""Attributes by which detectron2's modules keep the names of the maps that they read."""


def _names(value: Any) -> list[str]:
    # Of a linear layer, it is a number.
    names = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else []
    return [name for name in names if isinstance(name, str)]


def to_stage_name(name: str) -> str:
    """The name here of a feature map that detectron2's ResNets call res2, res3, ...; other names as they are."""
    match = re.fullmatch(r"res([2-9])", str(name))
    return f"stage{int(match[1]) - 1}" if match else name


@BACKBONE_REGISTRY.register()
def build_focalnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FocalNetBackbone:
    """FocalNet as `cfg.MODEL.FOCALNET` describes it (see `add_focalnet_config`).

    A config without that section gets the default FocalNet, FocalNet-T (srf), and the maps that its ResNet would give,
    `cfg.MODEL.RESNETS.OUT_FEATURES`.

    Raises:
        ValueError: `NUM_CHANNELS` is not the number of channels of `MODEL.PIXEL_MEAN`.
        CheckpointError, FileNotFoundError: the weights to start from cannot be had or do not fit.
    """
    if "FOCALNET" not in cfg.MODEL:
        cfg = cfg.clone()
        cfg.defrost()
        add_focalnet_config(cfg)
        cfg.MODEL.FOCALNET.OUT_FEATURES = list(cfg.MODEL.RESNETS.OUT_FEATURES)
    node = cfg.MODEL.FOCALNET
    knobs = {name: node[name.upper()] for name in KNOBS if node[name.upper()] is not None}
    if knobs.setdefault("num_channels", input_shape.channels) != input_shape.channels:
        raise ValueError(
            f"MODEL.FOCALNET.NUM_CHANNELS is {knobs['num_channels']}, "
            f"but MODEL.PIXEL_MEAN has {input_shape.channels} channels"
        )
    backbone = FocalNetBackbone(
        node.VARIANT or None,
        out_features=node.OUT_FEATURES,
        frozen_stages=node.FREEZE_AT - 1,
        use_checkpoint=node.USE_CHECKPOINT,
        **knobs,
    )
    if node.WEIGHTS:
        load_checkpoint(backbone, node.WEIGHTS)
    return backbone


@BACKBONE_REGISTRY.register()
def build_focalnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """FocalNet under an FPN whose last level, p6, is the one before subsampled."""
    return _build_fpn(cfg, build_focalnet_backbone(cfg, input_shape), LastLevelMaxPool())


@BACKBONE_REGISTRY.register()
def build_retinanet_focalnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """FocalNet under an FPN with RetinaNet's two further levels p6 and p7, convolved from the last stage."""
    bottom_up = build_focalnet_backbone(cfg, input_shape)
    last = _given_names(bottom_up, cfg.MODEL.FPN.IN_FEATURES)[-1]
    top_block = LastLevelP6P7(bottom_up.channels[last], cfg.MODEL.FPN.OUT_CHANNELS, in_feature=last)
    return _build_fpn(cfg, bottom_up, top_block)


def _build_fpn(cfg: CfgNode, bottom_up: FocalNetBackbone, top_block: nn.Module) -> FPN:
    fpn = FPN(
        bottom_up=bottom_up,
        in_features=_given_names(bottom_up, cfg.MODEL.FPN.IN_FEATURES),
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top_block,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
    freeze_unread(fpn)  # Also in a training of another project.
    return fpn


def _given_names(backbone: FocalNetBackbone, names: Sequence[str]) -> list[str]:
    """The names under which a backbone gives the maps that `MODEL.FPN.IN_FEATURES` wants, by either name of each."""
    given = {to_stage_name(name): name for name in backbone.out_features}
    unknown = [name for name in names if to_stage_name(name) not in given]
    if unknown or not names:
        found = f"has {', '.join(map(repr, unknown))}" if unknown else "is empty"
        raise ValueError(
            f"MODEL.FPN.IN_FEATURES {found}, but the backbone gives {', '.join(backbone.out_features)} "
            "(MODEL.FOCALNET.OUT_FEATURES)"
        )
    return [given[to_stage_name(name)] for name in names]
