"""FocalNet (focal modulation networks, arXiv 2203.11926) as a plugin backbone for detection and segmentation."""

from importlib import import_module
from typing import Any

from focalnet_backbone.network.backbone import FocalNet
from focalnet_backbone.network.config import FocalNetConfig
from focalnet_backbone.network.modulation import FocalModulation
from focalnet_backbone.network.variants import list_variants

__version__ = "0.1.0"

# What needs more than torch is imported when it is asked for, so that importing the package stays fast.
_ON_DEMAND = {
    "CheckpointError": "focalnet_backbone.checkpoints",
    "FeatureExtractor": "focalnet_backbone.features.extractor",
    "FeaturePyramid": "focalnet_backbone.features.extractor",
    "FocalNetForImageClassification": "focalnet_backbone.models",
    "FocalNetForMaskedImageModeling": "focalnet_backbone.models",
    "FocalNetImageProcessor": "focalnet_backbone.models",
    "FocalNetModel": "focalnet_backbone.models",
    "convert_state_dict": "focalnet_backbone.checkpoints",
    "create_backbone": "focalnet_backbone.create",
    "load_checkpoint": "focalnet_backbone.checkpoints",
}

__all__ = [
    "CheckpointError",
    "FeatureExtractor",
    "FeaturePyramid",
    "FocalModulation",
    "FocalNet",
    "FocalNetConfig",
    "FocalNetForImageClassification",
    "FocalNetForMaskedImageModeling",
    "FocalNetImageProcessor",
    "FocalNetModel",
    "convert_state_dict",
    "create_backbone",
    "list_variants",
    "load_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ON_DEMAND[name]), name)
