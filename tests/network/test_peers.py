"""The backbone answers what timm's and transformers' FocalNets answer on the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from focalnet_backbone import FocalNet
from focalnet_backbone.checkpoints import export_state_dict
from focalnet_backbone.models import FocalNetForImageClassification
from tests.checkpoints.families import randomise, shrunk, timm_model, transformers_model

FAMILIES = ["focalnet_small_srf", "focalnet_small_lrf", "focalnet_large_fl4", "focalnet_huge_fl3"]
PRECISIONS = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
IMAGES = (2, 3, 64, 96)


def outputs_of(model: nn.Module, modules: list[nn.Module], x: Tensor) -> list[Tensor]:
    """What the modules give in one forward pass of the model."""
    caught: list[Tensor] = []
    handles = [m.register_forward_hook(lambda _m, _i, output: caught.append(output)) for m in modules]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return caught


@pytest.fixture(params=FAMILIES)
def ours(request) -> FocalNetForImageClassification:
    """A small model of the family, with random weights."""
    return randomise(FocalNetForImageClassification(shrunk(request.param)), scale=0.2)


def backbone_with_weights_of(model: FocalNetForImageClassification, dtype: torch.dtype) -> FocalNet:
    backbone = FocalNet(model.config, out_indices=[1, 2, 3, 4]).to(dtype).eval()
    missing = backbone.load_state_dict(model.state_dict(), strict=False).missing_keys
    assert all(name.startswith("norm") for name in missing)
    return backbone


@PRECISIONS
def test_timms_features_are_the_stages_before_their_norm(ours, dtype, tolerance):
    theirs = timm_model(ours.config)
    weights = export_state_dict(ours.state_dict(), "timm", use_post_layernorm=ours.config.use_post_layernorm)
    theirs.load_state_dict(weights, strict=True)
    x = torch.randn(IMAGES, generator=torch.Generator().manual_seed(1)).to(dtype)
    backbone = backbone_with_weights_of(ours, dtype)
    found = outputs_of(backbone, list(backbone.layers), x)
    with torch.no_grad():
        expected = theirs.to(dtype).forward_intermediates(x, intermediates_only=True)
    for stage, feature in zip(found, expected, strict=True):
        torch.testing.assert_close(stage.permute(0, 3, 1, 2), feature, rtol=0, atol=tolerance)


@PRECISIONS
def test_transformers_hidden_states_are_the_stages_after_their_downsampling(ours, dtype, tolerance):
    theirs = transformers_model(ours.config)
    theirs.load_state_dict(export_state_dict(ours.state_dict(), "transformers"), strict=True)
    x = torch.randn(IMAGES, generator=torch.Generator().manual_seed(1)).to(dtype)
    backbone = backbone_with_weights_of(ours, dtype)
    modules = [backbone.patch_embed, *(stage.downsample or stage for stage in backbone.layers)]
    found = outputs_of(backbone, modules, x)
    with torch.no_grad():
        expected = theirs.to(dtype).focalnet(x, output_hidden_states=True).reshaped_hidden_states
    for stage, feature in zip(found, expected, strict=True):
        torch.testing.assert_close(stage.permute(0, 3, 1, 2), feature, rtol=0, atol=tolerance)
