"""FocalNet (focal modulation networks, arXiv 2203.11926) as a plugin backbone for detection and segmentation."""

from focalnet_backbone.backbone import FocalNet
from focalnet_backbone.config import FocalNetConfig
from focalnet_backbone.modulation import FocalModulation
from focalnet_backbone.variants import create_backbone, list_variants

__version__ = "0.1.0"

__all__ = [
    "FocalModulation",
    "FocalNet",
    "FocalNetConfig",
    "create_backbone",
    "list_variants",
]
