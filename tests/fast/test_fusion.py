"""fuse() keeps the outputs, and what can no longer be done with the model is refused."""

from __future__ import annotations

import contextlib
import copy
import pickle
from unittest import mock

import pytest
import torch
from torch import nn

from focalnet_backbone import FocalNet
from focalnet_backbone.models import FocalNetForImageClassification
from tests.fast.fast_paths import backbone, plain_formulation, small_tiles

PACK = torch.ops.mkldnn._reorder_linear_weight

SETTINGS = pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_layerscale": True},
        {"normalize_modulator": True},
        {"use_layerscale": True, "use_post_layernorm": True, "normalize_modulator": True},
    ],
    ids=["nothing to fold", "layer scale", "normalised", "post-norm"],
)


@SETTINGS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@torch.no_grad()
def test_outputs_stay_the_same(settings, dtype, tolerance):
    model = backbone(settings).to(dtype).eval()
    x = torch.randn(2, 3, 45, 52, dtype=dtype)
    expected = model(x)
    assert model.fuse() is model
    assert model.fuse() is model
    for block in (block for stage in model.layers for block in stage.blocks):
        assert block.gamma_1 is block.gamma_2 is None
        assert not block.modulation.normalize_modulator
    for found in (model(x), copy.deepcopy(model)(x), pickle.loads(pickle.dumps(model))(x)):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    with plain_formulation():
        torch.testing.assert_close(model(x), expected, rtol=tolerance, atol=tolerance)


@pytest.fixture
def fused() -> FocalNet:
    """Of widths that are packed."""
    return backbone({}, embed_dim=32).eval().fuse()


def packed_weights(model: FocalNet) -> list[dict]:
    return [block.packed_weights._packed for stage in model.layers for block in stage.blocks]


@pytest.mark.parametrize("tile", [small_tiles, contextlib.nullcontext], ids=["tiles", "whole"])
@torch.no_grad()
def test_packed_weights_give_what_the_others_give(fused, tile):
    x = torch.randn(2, 3, 45, 52)
    with plain_formulation():
        expected = fused(x)
    with tile(), mock.patch.object(torch.ops.mkldnn, "_reorder_linear_weight", wraps=PACK) as pack:
        found = [fused(x), fused(x.to(memory_format=torch.channels_last)), fused(x)]
    # Five layers, one of them in two parts; the gates, of four rows, are left as they are.
    assert pack.call_count == sum(map(len, packed_weights(fused))) == 3 * 6
    for maps in found:
        torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-5)


def write(weight: nn.Parameter) -> None:
    weight.mul_(2)


def load(weight: nn.Parameter) -> None:
    weight.copy_(torch.randn_like(weight))


def swap(weight: nn.Parameter) -> None:
    weight.data = weight * 2


@pytest.mark.parametrize("change", [write, load, swap])
@pytest.mark.parametrize("layer", ["modulation.f", "modulation.h", "modulation.proj", "mlp.fc1", "mlp.fc2"])
@torch.no_grad()
def test_a_changed_weight_is_packed_anew(fused, layer, change):
    x = torch.randn(1, 3, 32, 32)
    before = fused(x)["stage2"]
    change(fused.layers[0].blocks[0].get_submodule(layer).weight)
    after = fused(x)["stage2"]
    assert not torch.allclose(after, before)
    with plain_formulation():
        torch.testing.assert_close(after, fused(x)["stage2"], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_weight_in_the_place_of_another_is_packed(fused):
    x = torch.randn(1, 3, 32, 32)
    fused(x)
    layer = fused.layers[0].blocks[0].mlp.fc1
    # Anything is likely to lie where the old one lay.
    for _ in range(5):
        values = torch.randn_like(layer.weight)
        del layer.weight
        layer.weight = nn.Parameter(values, requires_grad=False)
        found = fused(x)["stage2"]
        with plain_formulation():
            torch.testing.assert_close(found, fused(x)["stage2"], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_copies_and_pickles_come_without_packed_weights(fused):
    x = torch.randn(1, 3, 32, 32)
    size = len(pickle.dumps(fused))
    expected = fused(x)["stage2"]
    assert all(packed_weights(fused))
    assert len(pickle.dumps(fused)) == size
    for other in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        assert not any(packed_weights(other))
        assert torch.equal(other(x)["stage2"], expected)


@torch.no_grad()
def test_only_float32_on_the_cpu_is_packed(fused):
    x = torch.randn(1, 3, 32, 32)
    with torch.backends.mkldnn.flags(enabled=False):
        expected = fused(x)["stage2"]
    with torch.autocast("cpu", torch.bfloat16), mock.patch.dict("os.environ", FOCALNET_CPU_AUTOCAST="on"):
        torch.testing.assert_close(fused(x)["stage2"].float(), expected, rtol=0.1, atol=0.1)
    double = copy.deepcopy(fused).double()
    torch.testing.assert_close(double(x.double())["stage2"].float(), expected, rtol=1e-4, atol=1e-4)
    with torch.inference_mode():
        unversioned = copy.deepcopy(fused)
        unversioned(x)
    assert not any(map(any, map(packed_weights, (fused, double, unversioned))))


@torch.no_grad()
def test_large_maps_are_multiplied_by_the_weights_as_they_are(fused):
    fused(torch.randn(1, 3, 160, 160))
    first, *others = packed_weights(fused)
    assert not first
    assert all(others)


@torch.no_grad()
def test_maps_of_any_strides_are_multiplied_by_packed_weights(fused):
    block = fused.layers[0].blocks[0]
    for dims in ((0, 1, 2, 3), (0, 2, 1, 3), (3, 1, 2, 0), (1, 2, 3, 0)):
        x = torch.randn([(2, 5, 7, 32)[dim] for dim in dims]).permute([dims.index(dim) for dim in range(4)])
        with plain_formulation():
            expected = block(x)
        torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)
        assert x.shape == (2, 5, 7, 32)


def test_other_holders_of_the_weights_keep_theirs():
    model = backbone({"use_layerscale": True})
    held = dict(model.named_parameters())
    values = {name: parameter.clone() for name, parameter in held.items()}
    model.fuse()
    for name, parameter in held.items():
        assert torch.equal(parameter, values[name])


def test_a_fused_model_is_for_inference_alone():
    model = backbone({"use_layerscale": True}).fuse()
    detector = nn.Sequential(model)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.eval() is model
    weights = backbone({"use_layerscale": True}).state_dict()
    for attempt, words in [
        (model.train, "trained"),
        (detector.train, "trained"),
        (model.state_dict, "saved as a state dict"),
        (detector.state_dict, "saved as a state dict"),
        (lambda: model.load_state_dict(weights, strict=False), "loaded from a state dict"),
    ]:
        with pytest.raises(RuntimeError, match=f"a fused model cannot be {words}; do that before fuse"):
            attempt()


def test_the_models_with_heads_fuse_too(tmp_path):
    model = FocalNetForImageClassification(backbone({"use_layerscale": True}).config.replace(num_labels=3)).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = model(x).logits
        torch.testing.assert_close(model.fuse()(x).logits, expected)
    with pytest.raises(RuntimeError, match="fused"):
        model.save_pretrained(tmp_path / "model")


def test_a_replaced_layer_is_refused_and_nothing_is_changed():
    model = backbone({"use_layerscale": True}).eval()
    model.layers[1].blocks[1].mlp.fc2 = nn.Identity()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(TypeError, match="cannot fold a factor into a Identity, only into a Linear"):
        model.fuse()
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert list(after) == list(before)
