"""fuse() keeps the outputs, and what can no longer be done with the model is refused."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from focalnet_backbone.models import FocalNetForImageClassification
from tests.fast.fast_paths import backbone, plain_formulation

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
