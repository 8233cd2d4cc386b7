"""Packed weights: the same products, and never those of a weight that has changed since."""

from __future__ import annotations

import copy
import gc
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from focalnet_backbone.fast import packing
from focalnet_backbone.fast.packing import pack, packed_linear
from tests.fast.fast_paths import backbone, only_fast_paths, plain_formulation


@pytest.fixture
def weight() -> nn.Parameter:
    torch.manual_seed(0)
    return nn.Parameter(torch.randn(24, 16))


@pytest.mark.parametrize("rows", [(0, 24), (0, 8), (8, 21)])
@pytest.mark.parametrize("gelu", [None, "none", "tanh"])
@torch.no_grad()
def test_a_packed_product_is_that_of_the_weight(weight, rows, gelu):
    x, bias = torch.randn(2, 7, 16), torch.randn(24)[slice(*rows)]
    expected = F.linear(x, weight[slice(*rows)], bias)
    found = packed_linear(x, pack(weight, *rows), bias, gelu=gelu)
    torch.testing.assert_close(found, F.gelu(expected, approximate=gelu) if gelu else expected)
    base = torch.randn(expected.shape)
    before = base.clone()
    torch.testing.assert_close(packed_linear(x, pack(weight, *rows), None, base=base), base + expected - bias)
    assert torch.equal(base, before)


def through_data(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data.mul_(1.5)


def in_one_element(model: nn.Module) -> None:
    model.layers[0].blocks[0].mlp.fc1.weight.data[1, 3] += 4


def by_reordering(model: nn.Module) -> None:
    weight = model.layers[1].blocks[0].mlp.fc2.weight
    weight.data = weight.data.copy_(weight.data.flip(0))


def by_an_optimizer(model: nn.Module) -> None:
    sum(p.square().sum() for p in model.parameters()).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()


def from_a_checkpoint(model: nn.Module) -> None:
    model.load_state_dict({name: tensor * 0.5 for name, tensor in model.state_dict().items()})


def by_other_tensors(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data = torch.full_like(parameter, 0.1)


def by_other_parameters(model: nn.Module) -> None:
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(parameter.detach() * 0.7))


CHANGES = [
    through_data,
    in_one_element,
    by_reordering,
    by_an_optimizer,
    from_a_checkpoint,
    by_other_tensors,
    by_other_parameters,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_of_the_weights_is_seen(change):
    model, x = backbone({}).eval(), torch.randn(1, 3, 40, 48)
    with torch.no_grad():
        before = model(x)
    change(model)
    with torch.no_grad(), only_fast_paths():
        found = model(x)
    with torch.no_grad(), plain_formulation():
        expected = model(x)
    for name, feature in expected.items():
        torch.testing.assert_close(found[name], feature, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before["stage2"], expected["stage2"], rtol=1e-3)


def packed_in(model: nn.Module) -> int:
    return sum(parameter in packing._packed for parameter in model.parameters())


def test_packed_weights_live_beside_the_model_and_go_when_it_trains():
    model, x = backbone({}).eval(), torch.randn(1, 3, 40, 48)
    size, names = len(pickle.dumps(model)), set(model.state_dict())
    with torch.no_grad():
        model(x)
    assert packed_in(model) == 5 * 3
    assert (len(pickle.dumps(model)), set(model.state_dict())) == (size, names)
    assert packed_in(copy.deepcopy(model)) == 0
    model.train()(x)
    assert packed_in(model) == 0
    with torch.no_grad():
        model.eval()(x)
    model.double()(x.double())
    assert packed_in(model) == 0
    with torch.no_grad():
        model.float()(x)
        model.double()(x.double())
    assert packed_in(model) == 0
    with torch.no_grad():
        model.float()(x)
    kept = len(packing._packed)
    del model
    gc.collect()
    assert len(packing._packed) == kept - 5 * 3


@pytest.mark.parametrize(
    "spoil",
    [
        lambda w: w.detach(),
        lambda w: nn.Parameter(w.detach().double()),
        lambda w: nn.Parameter(w.detach().bfloat16()),
        lambda w: nn.Parameter(w.detach().t()),
        lambda w: nn.Parameter(w.detach()[:0]),
        lambda w: nn.Parameter(w.detach().to("meta")),
    ],
    ids=["no parameter", "float64", "bfloat16", "transposed", "empty", "meta"],
)
def test_other_tensors_are_not_packed(weight, spoil):
    assert pack(spoil(weight)) is None


def test_nothing_is_packed_without_onednn_or_of_parameters_without_versions(weight):
    with torch.backends.mkldnn.flags(enabled=False):
        assert pack(weight) is None
    with torch.inference_mode():
        assert pack(nn.Parameter(torch.ones(4, 4))) is None
