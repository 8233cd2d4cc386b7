"""FocalNet for detectron2: importing this puts the backbones into detectron2's registry."""

from focalnet_backbone.detectron2.backbone import (
    FocalNetBackbone,
    build_focalnet_backbone,
    build_focalnet_fpn_backbone,
    build_retinanet_focalnet_fpn_backbone,
)
from focalnet_backbone.detectron2.checkpoint import FocalNetCheckpointer
from focalnet_backbone.detectron2.config import add_focalnet_config

__all__ = [
    "FocalNetBackbone",
    "FocalNetCheckpointer",
    "add_focalnet_config",
    "build_focalnet_backbone",
    "build_focalnet_fpn_backbone",
    "build_retinanet_focalnet_fpn_backbone",
]
