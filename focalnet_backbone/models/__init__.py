"""The models beside the backbone: tokens, classification, masked image modeling, and image processing."""

from focalnet_backbone.models.classification import FocalNetForImageClassification
from focalnet_backbone.models.image_processor import FocalNetImageProcessor
from focalnet_backbone.models.masked_modeling import FocalNetForMaskedImageModeling
from focalnet_backbone.models.model import FocalNetModel

__all__ = [
    "FocalNetForImageClassification",
    "FocalNetForMaskedImageModeling",
    "FocalNetImageProcessor",
    "FocalNetModel",
]
