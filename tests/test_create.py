"""Backbones built from checkpoints alone."""

from __future__ import annotations

import pytest
import torch

from focalnet_backbone import CheckpointError, FocalNet, create_backbone
from focalnet_backbone.create import build_backbone
from focalnet_backbone.models import FocalNetModel


def assert_same_features(built: FocalNet, original: FocalNet) -> None:
    x = torch.randn(1, 3, 64, 64)
    features, expected = built.eval()(x), original.eval()(x)
    assert list(features) == list(expected)
    assert all(torch.equal(features[name], expected[name]) for name in expected)


def test_sizes_are_those_of_the_tensors_and_all_stages_are_returned():
    original = create_backbone(
        "focalnet_tiny_lrf", focal_windows=[9, 9, 9, 7], embed_dim=16, mlp_ratio=2.0, out_indices=[1, 2, 3, 4]
    )
    weights = {f"backbone.{name}": tensor for name, tensor in original.state_dict().items()}
    assert_same_features(build_backbone(weights, variant="focalnet_tiny_lrf"), original)


def test_a_variant_gives_what_no_shape_shows():
    original = create_backbone("focalnet_large_fl4", embed_dim=8, depths=[1, 1, 1, 1], out_indices=[1, 2, 3, 4])
    built = build_backbone(original.state_dict(), variant="focalnet_large_fl4")
    assert built.config.use_post_layernorm
    assert built.config.normalize_modulator
    assert_same_features(built, original)


def test_published_shapes_and_saved_folders_need_no_variant(tmp_path):
    original = create_backbone("focalnet_tiny_srf", out_indices=[1, 2, 3, 4])
    assert_same_features(build_backbone(original.state_dict()), original)
    model = FocalNetModel(original.config.replace(embed_dim=8, use_post_layernorm=True))
    model.save_pretrained(tmp_path)
    assert build_backbone(tmp_path).config.use_post_layernorm


def test_what_cannot_be_built_is_said():
    weights = create_backbone("focalnet_tiny_srf", embed_dim=8).state_dict()
    with pytest.raises(CheckpointError, match="no published model has these shapes; name one of the same family"):
        build_backbone(weights)
    with pytest.raises(CheckpointError, match="has use_conv_embed=False, but the architecture given for it True"):
        build_backbone(weights, variant="focalnet_large_fl4")
    with pytest.raises(CheckpointError, match="holds no FocalNet weights"):
        build_backbone({"a": torch.zeros(1)})
    with pytest.raises(KeyError, match="no FocalNet variant 'focalnet'"):
        build_backbone(weights, variant="focalnet")
