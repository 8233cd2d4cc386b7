"""FocalNet (focal modulation networks, arXiv 2203.11926) as a plugin backbone for detection and segmentation."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from focalnet_backbone.checkpoints import CheckpointError, convert_state_dict, load_checkpoint
    from focalnet_backbone.create import create_backbone
    from focalnet_backbone.features.extractor import FeatureExtractor, FeaturePyramid
    from focalnet_backbone.models import (
        FocalNetForImageClassification,
        FocalNetForMaskedImageModeling,
        FocalNetImageProcessor,
        FocalNetModel,
    )
    from focalnet_backbone.network.backbone import FocalNet
    from focalnet_backbone.network.config import FocalNetConfig
    from focalnet_backbone.network.modulation import FocalModulation
    from focalnet_backbone.network.variants import list_variants

__version__ = "0.1.0"

# Each is imported when it is asked for, so that importing the package is fast, and `focalnet --help` without PyTorch.
# Editors read the same names above.
_ON_DEMAND = {
    "CheckpointError": "focalnet_backbone.checkpoints",
    "FeatureExtractor": "focalnet_backbone.features.extractor",
    "FeaturePyramid": "focalnet_backbone.features.extractor",
    "FocalModulation": "focalnet_backbone.network.modulation",
    "FocalNet": "focalnet_backbone.network.backbone",
    "FocalNetConfig": "focalnet_backbone.network.config",
    "FocalNetForImageClassification": "focalnet_backbone.models",
    "FocalNetForMaskedImageModeling": "focalnet_backbone.models",
    "FocalNetImageProcessor": "focalnet_backbone.models",
    "FocalNetModel": "focalnet_backbone.models",
    "convert_state_dict": "focalnet_backbone.checkpoints",
    "create_backbone": "focalnet_backbone.create",
    "list_variants": "focalnet_backbone.network.variants",
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


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
