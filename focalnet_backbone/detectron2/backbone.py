"""FocalNet as a detectron2 `Backbone`, alone and under a feature pyramid network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from torch import nn

from focalnet_backbone.detectron2.config import KNOBS
from focalnet_backbone.network.backbone import FocalNet
from focalnet_backbone.network.config import FocalNetConfig


class FocalNetBackbone(FocalNet, Backbone):
    """`FocalNet` with detectron2's interface; the names in its state dict are the release's own.

    Maps images `(N, C, H, W)` to a dict of `(N, C_i, H / s_i, W / s_i)` with the names of `out_features`.

    Args:
        variant: name of a published model whose architecture to take; None for the defaults of `FocalNetConfig`.
        out_features: names of the feature maps to return; None for all stages.
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
        super().__init__(
            config,
            out_features=config.stage_names[1:] if out_features is None else out_features,
            frozen_stages=frozen_stages,
            use_checkpoint=use_checkpoint,
        )

    @property
    def size_divisibility(self) -> int:
        """The largest stride: images padded to a multiple of it have maps of exactly half the size at each stage."""
        return max(self.strides.values())

    @property
    def padding_constraints(self) -> dict[str, int]:
        """`size_divisibility` in the form that detectron2's meta-architectures read."""
        return {"size_divisibility": self.size_divisibility}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature map, by name."""
        return {
            name: ShapeSpec(channels=channels, stride=self.strides[name]) for name, channels in self.channels.items()
        }


@BACKBONE_REGISTRY.register()
def build_focalnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FocalNetBackbone:
    """FocalNet as `cfg.MODEL.FOCALNET` describes it (see `add_focalnet_config`).

    Raises `ValueError` if `NUM_CHANNELS` is not the number of channels of `MODEL.PIXEL_MEAN`.
    """
    node = cfg.MODEL.FOCALNET
    knobs = {name: node[name.upper()] for name in KNOBS if node[name.upper()] is not None}
    if knobs.setdefault("num_channels", input_shape.channels) != input_shape.channels:
        raise ValueError(
            f"MODEL.FOCALNET.NUM_CHANNELS is {knobs['num_channels']}, "
            f"but MODEL.PIXEL_MEAN has {input_shape.channels} channels"
        )
    return FocalNetBackbone(
        node.VARIANT or None,
        out_features=node.OUT_FEATURES,
        frozen_stages=node.FREEZE_AT - 1,
        use_checkpoint=node.USE_CHECKPOINT,
        **knobs,
    )


@BACKBONE_REGISTRY.register()
def build_focalnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """FocalNet under an FPN whose last level, p6, is the one before subsampled."""
    return _build_fpn(cfg, build_focalnet_backbone(cfg, input_shape), LastLevelMaxPool())


@BACKBONE_REGISTRY.register()
def build_retinanet_focalnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """FocalNet under an FPN with RetinaNet's two further levels p6 and p7, convolved from the last stage."""
    bottom_up = build_focalnet_backbone(cfg, input_shape)
    last = cfg.MODEL.FPN.IN_FEATURES[-1]
    top_block = LastLevelP6P7(bottom_up.channels[last], cfg.MODEL.FPN.OUT_CHANNELS, in_feature=last)
    return _build_fpn(cfg, bottom_up, top_block)


def _build_fpn(cfg: CfgNode, bottom_up: FocalNetBackbone, top_block: nn.Module) -> FPN:
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top_block,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
