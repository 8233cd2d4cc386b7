"""Kernels are enlarged and gates spread as in the published recipes, and what cannot fit is explained."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from focalnet_backbone import FocalNet
from focalnet_backbone.checkpoints import CheckpointError, load_checkpoint
from focalnet_backbone.checkpoints.adapt import resize_kernel, spread_gates
from focalnet_backbone.models import FocalNetForImageClassification, FocalNetForMaskedImageModeling
from tests.checkpoints.families import backbone, randomise, shrunk
from tests.conftest import knobs_from_reference, load_golden

RECIPES = ["adapt_srf_3_to_9", "adapt_srf_to_lrf", "adapt_lrf_to_11_9_9_7"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_pretrained_weights_become_the_tensors_of_the_release(recipe):
    golden = load_golden(recipe)
    model = FocalNet(**knobs_from_reference(golden["kwargs"]), out_indices=[1, 2, 3, 4])
    report = load_checkpoint(model, golden["pretrained"])
    adapted = model.state_dict()
    for name, expected in golden["adapted"].items():
        assert torch.equal(adapted[name], expected), name
    assert set(report.missing) == set(golden["missing"])


@pytest.mark.parametrize("recipe", RECIPES)
def test_adapted_weights_give_the_features_of_the_release(recipe):
    golden = load_golden(recipe)
    model = FocalNet(**knobs_from_reference(golden["kwargs"]), out_indices=[1, 2, 3, 4])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    load_checkpoint(model, golden["pretrained"])
    features = model.eval().double()(golden["input"].double())
    for feature, expected in zip(features.values(), golden["features"], strict=True):
        torch.testing.assert_close(feature, expected, rtol=1e-9, atol=1e-9)


@given(st.sampled_from([1, 3, 5, 7]), st.sampled_from([0, 2, 4, 6]))
def test_an_enlarged_kernel_convolves_as_the_small_one(size, growth):
    generator = torch.Generator().manual_seed(size)
    kernel = torch.randn(2, 1, size, size, generator=generator)
    images = torch.randn(1, 2, 9, 9, generator=generator)
    enlarged = resize_kernel(kernel, size + growth)
    expected = F.conv2d(images, kernel, padding=size // 2, groups=2)
    found = F.conv2d(images, enlarged, padding=(size + growth) // 2, groups=2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@given(st.sampled_from([3, 5, 7]), st.sampled_from([2, 4]))
def test_a_kernel_is_cut_to_its_centre_and_back_from_enlarging(size, growth):
    kernel = torch.arange(size * size, dtype=torch.float32).view(1, 1, size, size)
    assert torch.equal(resize_kernel(resize_kernel(kernel, size + growth), size), kernel)
    assert resize_kernel(kernel, 1).item() == kernel[0, 0, size // 2, size // 2]


def test_gates_keep_their_meaning_for_more_levels_and_for_fewer():
    query, context, first, second, everywhere = 1.0, 2.0, 3.0, 4.0, 5.0
    bias = torch.tensor([query, query, context, context, first, second, everywhere])
    more = spread_gates(bias, channels=2, levels=4)
    assert more.tolist() == [query, query, context, context, first, second, 0, 0, everywhere]
    fewer = spread_gates(bias[:, None].expand(-1, 2), channels=2, levels=1)
    assert fewer[:, 0].tolist() == [query, query, context, context, first, everywhere]


def test_kernels_of_added_levels_keep_their_own_values():
    model = backbone("focalnet_tiny_lrf")
    own = model.layers[1].blocks[0].modulation.focal_layers[2][0].weight.clone()
    report = load_checkpoint(model, backbone("focalnet_tiny_srf", embed_dim=4).state_dict())
    assert torch.equal(model.layers[1].blocks[0].modulation.focal_layers[2][0].weight, own)
    assert "layers.1.blocks.0.modulation.focal_layers.2.0.weight" in report.missing


def test_fewer_levels_than_the_checkpoint_is_an_error_that_says_so():
    with pytest.raises(CheckpointError, match=r"gates for 3 focal levels, the model has 2.*drop_levels=True"):
        load_checkpoint(backbone("focalnet_tiny_srf"), backbone("focalnet_tiny_lrf").state_dict())


def test_levels_are_dropped_on_demand_and_reported():
    source = backbone("focalnet_tiny_lrf").state_dict()
    model = backbone("focalnet_tiny_srf")
    report = load_checkpoint(model, source, drop_levels=True)
    dropped = {f"layers.{stage}.blocks.0.modulation.focal_layers.2.0.weight" for stage in range(4)}
    assert set(report.ignored) == dropped
    gates = model.layers[0].blocks[0].modulation.f.bias[8:]
    theirs = source["layers.0.blocks.0.modulation.f.bias"][8:]
    assert torch.equal(gates, theirs[[0, 1, 3]])


@pytest.mark.parametrize(
    ("theirs", "ours", "words"),
    [
        ({"use_conv_embed": True}, {}, r"patch_embed.proj.weight .*\(4, 3, 7, 7\), .*\(4, 3, 4, 4\).*use_conv_embed"),
        ({}, {"use_conv_embed": True}, r"patch_embed.proj.weight .*\(4, 3, 4, 4\), .*\(4, 3, 7, 7\).*use_conv_embed"),
        ({"patch_size": 16}, {}, r"patch_embed.proj.weight .*\(4, 3, 16, 16\), .*\(4, 3, 4, 4\).*patch_size"),
        ({"num_channels": 1}, {}, r"patch_embed.proj.weight .*\(4, 1, 4, 4\), .*\(4, 3, 4, 4\).*num_channels"),
        ({"embed_dim": 8}, {}, r"patch_embed.proj.weight .*\(8, 3, 4, 4\), .*\(4, 3, 4, 4\).*embed_dim"),
        ({"mlp_ratio": 2.0}, {}, r"layers.0.blocks.0.mlp.fc1.weight .*\(8, 4\), .*\(16, 4\).*mlp_ratio"),
        ({"depths": [1, 2, 1, 1]}, {}, r"no place for \(layers.\*.blocks.\*.*depths"),
        ({}, {"depths": [1, 2, 1, 1]}, r"lacks .* of the model's tensors \(layers.\*.blocks.\*.*depths"),
        ({}, {"use_layerscale": True}, r"lacks 8 .*gamma_1.*use_layerscale"),
        ({"use_layerscale": True}, {}, r"has 8 tensors.*gamma_1.*use_layerscale"),
        ({}, {"use_post_layernorm_in_modulation": True}, r"modulation.ln.*use_post_layernorm_in_modulation"),
    ],
)  # fmt: skip
def test_what_cannot_fit_is_named_with_its_shapes_and_the_knob(theirs, ours, words):
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(backbone(**ours), backbone(**theirs).state_dict())


@pytest.mark.parametrize("shape", [(4, 1, 4, 4), (4, 1, 3, 5)])
def test_a_kernel_that_has_no_centre_in_the_models_is_named(shape):
    name = "layers.0.blocks.0.modulation.focal_layers.0.0.weight"
    with pytest.raises(CheckpointError, match=r"focal_layers\.0\.0\.weight has shape .*focal_windows probably differs"):
        load_checkpoint(backbone(), {**backbone().state_dict(), name: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("make", "knob"),
    [(FocalNetForImageClassification, "num_labels"), (FocalNetForMaskedImageModeling, "encoder_stride")],
)
def test_a_head_of_another_size_is_named_with_its_knob(make, knob):
    theirs, ours = (randomise(make(shrunk("focalnet_tiny_srf", **{knob: value}))) for value in (8, 16))
    with pytest.raises(CheckpointError, match=rf"shape \((8|192), .*{knob} probably differs"):
        load_checkpoint(ours, theirs.state_dict())
