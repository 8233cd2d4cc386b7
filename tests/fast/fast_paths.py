"""Blocks whose every setting matters, and the plain formulation as an oracle for the fast ways of computing them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

from focalnet_backbone import FocalNet, FocalNetConfig
from focalnet_backbone.network.blocks import FocalNetBlock

SETTINGS = {
    "pre-norm": {},
    "layer scale": {"use_layerscale": True},
    "post-norm": {"use_post_layernorm": True, "use_layerscale": True, "hidden_act": "gelu_new"},
    "norm in modulation": {"use_post_layernorm_in_modulation": True, "normalize_modulator": True},
}
ALL_SETTINGS = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


def randomised(module: nn.Module, scale: float = 0.4) -> nn.Module:
    """Random values for all parameters, ones and zeros of norms included."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=scale)
    return module


def block(settings: dict[str, Any], dim: int = 6, levels: int = 3, window: int = 9) -> FocalNetBlock:
    config = FocalNetConfig(embed_dim=dim, depths=[1], focal_levels=[levels], focal_windows=[window], **settings)
    return randomised(FocalNetBlock(config, 0))


def backbone(settings: dict[str, Any], **knobs: Any) -> FocalNet:
    sizes = {"embed_dim": 8, "depths": [1, 2], "focal_levels": [3, 3], "focal_windows": [9, 3], "drop_path_rate": 0.0}
    return randomised(FocalNet(**{**sizes, "out_indices": [1, 2], **settings, **knobs}), scale=0.2)


@contextmanager
def plain_formulation() -> Iterator[None]:
    """Blocks compute by calling their submodules."""
    with mock.patch("focalnet_backbone.network.blocks.may_bypass_submodules", return_value=False):
        yield


@contextmanager
def only_fast_paths() -> Iterator[None]:
    """Blocks that compute by calling their submodules fail."""

    def fail(self, *_):
        raise AssertionError("the plain formulation was taken")

    with mock.patch.object(FocalNetBlock, "_plain_branch", fail):
        yield


@contextmanager
def small_tiles() -> Iterator[None]:
    """Many tiles in small maps."""
    with (
        mock.patch("focalnet_backbone.fast.inference._TILE_BYTES", 1),
        mock.patch("focalnet_backbone.fast.inference._MIN_ROWS", 13),
    ):
        yield
