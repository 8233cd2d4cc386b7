"""A block calls its submodules whenever somebody could tell the difference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.autograd.forward_ad as fwd
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrize

from focalnet_backbone.fast.dispatch import may_bypass_submodules
from focalnet_backbone.network.blocks import FocalNetBlock
from tests.fast.fast_paths import backbone, block, only_fast_paths, plain_formulation

X = (2, 5, 7, 6)
SUBMODULES = [name for name, _ in block({"use_post_layernorm_in_modulation": True}).named_modules() if name]
MODES = pytest.mark.parametrize("grad", [False, True], ids=["no grad", "grad"])


def test_an_ordinary_block_bypasses_its_submodules():
    assert may_bypass_submodules(block({}), torch.zeros(X))


@MODES
@pytest.mark.parametrize("name", [name for name in SUBMODULES if not name.endswith("focal_layers")])
def test_hooks_of_every_submodule_fire_and_change_nothing(name, grad):
    model = block({"use_post_layernorm_in_modulation": True}).eval()
    x = torch.randn(X)
    with torch.set_grad_enabled(grad):
        expected = model(x)
        for register in (nn.Module.register_forward_hook, nn.Module.register_forward_pre_hook):
            calls = []
            handle = register(model.get_submodule(name), lambda *_, calls=calls: calls.append(1))
            torch.testing.assert_close(model(x), expected)
            handle.remove()
            assert calls
    with only_fast_paths():
        model(x)


def test_backward_hooks_fire():
    model = block({})
    calls = []
    model.modulation.h.register_full_backward_hook(lambda *_: calls.append(1))
    model(torch.randn(X, requires_grad=True)).sum().backward()
    assert calls == [1]


def test_hooks_of_all_modules_fire():
    model = block({})
    seen = set()
    handle = register_module_forward_hook(lambda module, *_: seen.add(module))
    try:
        model(torch.randn(X))
    finally:
        handle.remove()
    assert {model.norm1, model.modulation.h, model.modulation.focal_layers[0][0], model.mlp.fc2} <= seen


class Doubled(nn.Linear):
    """A linear layer with a twist, as adapters and quantised layers have one."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Twice(nn.Module):
    """A parametrisation."""

    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def doubled(layer: nn.Linear) -> nn.Linear:
    replacement = Doubled(layer.in_features, layer.out_features)
    replacement.load_state_dict(layer.state_dict())
    return replacement


def replace_projection(model: FocalNetBlock) -> None:
    model.modulation.proj = doubled(model.modulation.proj)


def parametrise_kernel(model: FocalNetBlock) -> None:
    parametrize.register_parametrization(model.modulation.focal_layers[1][0], "weight", Twice())


def override_forward(model: FocalNetBlock) -> None:
    model.mlp.fc1.forward = lambda x: nn.functional.linear(x, 2 * model.mlp.fc1.weight)


def dilate_kernel(model: FocalNetBlock) -> None:
    convolution = model.modulation.focal_layers[0][0]
    convolution.dilation, convolution.padding = (2, 2), (8, 8)


def drop_bias(model: FocalNetBlock) -> None:
    model.modulation.h = nn.Conv2d(6, 6, 1, bias=False)


def flatten_kernel(model: FocalNetBlock) -> None:
    convolution = nn.Conv2d(6, 6, (9, 5), padding=(4, 2), groups=6, bias=False)
    model.modulation.focal_layers[0][0] = convolution


def change_activation(model: FocalNetBlock) -> None:
    model.mlp.act = nn.ReLU()


def change_levels_activation(model: FocalNetBlock) -> None:
    model.modulation.focal_layers[2][1] = nn.GELU(approximate="tanh")


@MODES
@pytest.mark.parametrize(
    "change",
    [
        replace_projection,
        parametrise_kernel,
        override_forward,
        dilate_kernel,
        drop_bias,
        flatten_kernel,
        change_activation,
        change_levels_activation,
    ],
)
def test_a_changed_submodule_is_used(change: Callable[[FocalNetBlock], None], grad):
    model = block({}).eval()
    x = torch.randn(X)
    with torch.set_grad_enabled(grad):
        before = model(x)
        change(model)
        after = model(x)
        with plain_formulation():
            expected = model(x)
    assert not torch.allclose(before, after, rtol=1e-5, atol=1e-6)
    assert torch.equal(after, expected)


@MODES
def test_weights_that_are_no_parameters_are_used_as_they_are(grad):
    """Those of frozen layers that were made buffers, and of replicas that data parallelism makes."""
    model = block({"use_layerscale": True}).eval()
    x = torch.randn(X)
    expected = model(x)
    for name, parameter in list(model.named_parameters()):
        owner, _, own_name = name.rpartition(".")
        layer = model.get_submodule(owner)
        delattr(layer, own_name)
        if own_name == "bias":
            setattr(layer, own_name, parameter.detach())
        else:
            layer.register_buffer(own_name, parameter.detach())
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(model(x), expected)


def test_active_dropout_is_not_bypassed():
    model = block({"hidden_dropout_prob": 0.5})
    assert may_bypass_submodules(model.eval(), torch.zeros(X))
    assert not may_bypass_submodules(model.train(), torch.zeros(X))


# Transforms and tracers take the plain formulation, and compute the same


def test_transforms_of_torch_func_work():
    model = block({}).double()
    x = torch.randn(3, *X[1:], dtype=torch.double)
    tangent = torch.randn_like(x)

    def call(x: Tensor) -> Tensor:
        return model(x[None])[0]

    torch.testing.assert_close(torch.func.vmap(call)(x), torch.stack([call(sample) for sample in x]))
    gradient = torch.func.grad(lambda x: model(x).square().sum())(x)
    leaf = x.clone().requires_grad_()
    torch.testing.assert_close(gradient, torch.autograd.grad(model(leaf).square().sum(), leaf)[0])
    _, slope = torch.func.jvp(model, (x,), (tangent,))
    with fwd.dual_level():
        torch.testing.assert_close(fwd.unpack_dual(model(fwd.make_dual(x, tangent))).tangent, slope)
    nudge = 1e-6 * tangent
    torch.testing.assert_close((model(x + nudge) - model(x - nudge)) / 2e-6, slope, rtol=1e-6, atol=1e-7)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_a_trace_computes_the_same():
    model = backbone({}).eval()
    x = torch.randn(1, 3, 32, 40)
    with torch.no_grad():
        traced = torch.jit.trace(model, x, strict=False)
        other = torch.randn(1, 3, 32, 40)
        torch.testing.assert_close(traced(other)["stage2"], model(other)["stage2"])


def test_tensors_that_are_not_plain_take_the_plain_formulation():
    class Marked(Tensor):
        pass

    model = block({})
    assert not may_bypass_submodules(model, torch.zeros(X).as_subclass(Marked))
    assert not may_bypass_submodules(model, torch.zeros(X, device="meta"))
    assert not may_bypass_submodules(model, torch.zeros(0, 5, 7, 6))
    model.mlp.fc1.weight = nn.Parameter(model.mlp.fc1.weight.detach().as_subclass(Marked))
    assert not may_bypass_submodules(model, torch.zeros(X))
