"""A user's program, which mypy checks: what editors know of the public names. It is read, and never run."""

from __future__ import annotations

from typing_extensions import assert_type

from focalnet_backbone import (
    FeatureExtractor,
    FeaturePyramid,
    FocalNet,
    FocalNetConfig,
    FocalNetForImageClassification,
    create_backbone,
    list_variants,
)
from focalnet_backbone.configs import find_config, list_configs

assert_type(list_variants(), list[str])
assert_type(list_configs("mmseg"), list[str])
assert_type(find_config("upernet_focalnet_sample").name, str)

config = FocalNetConfig.from_variant("focalnet_tiny_lrf")
assert_type(config, FocalNetConfig)
assert_type(config.embed_dim, int)
backbone = create_backbone("focalnet_tiny_lrf", out_indices=[1, 2, 3, 4])
assert_type(backbone, FocalNet)
assert_type(backbone.channels, dict[str, int])
assert_type(FocalNetForImageClassification.from_pretrained("focalnet"), FocalNetForImageClassification)
for pyramid in FeatureExtractor(backbone).stream("photos"):
    assert_type(pyramid, FeaturePyramid)
