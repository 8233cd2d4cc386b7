"""Photos in, feature pyramids out."""

from focalnet_backbone.features.extractor import FeatureExtractor
from focalnet_backbone.features.pyramid import FeaturePyramid

__all__ = ["FeatureExtractor", "FeaturePyramid"]
