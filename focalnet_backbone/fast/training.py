"""The branches of a block for training: they keep for the backward pass only what is dear to compute again.

Plain autograd keeps every tensor that a product, norm or activation touches: 23 maps of the block's width a block with
three focal levels. Here the modulation keeps its input, query, context, gates and the result of each depth-wise
convolution, and the MLP its input and the hidden layer before the activation: 11 maps. Norms, activations, gating and
the projection `h` are computed again in the backward pass, tile by tile as in `inference.py`, while they are in the
cache.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from focalnet_backbone.fast.inference import compute_dtype, tiles
from focalnet_backbone.fast.kernels import (
    add_level,
    depthwise_input_gradient,
    depthwise_weight_gradient,
    linear,
    triton_kernels,
)

aten = torch.ops.aten

# Rows of as many channels as so many maps have are at hand in a tile of the modulation's backward pass.
_BACKWARD_WIDTHS = 8


def run_branch(layer: nn.Module, norm: nn.LayerNorm | None, gamma: Tensor | None, x: Tensor) -> Tensor:
    """`gamma * layer(norm(x))` of `(N, H, W, C)`, for a stock FocalModulation or Mlp; norm and gamma may be None."""
    parameters = dict(layer.named_parameters())
    function, last = (_Modulate, "proj") if "proj.weight" in parameters else (_FeedForward, "fc2")
    dtype = compute_dtype(x, parameters[f"{last}.weight"])
    if gamma is not None:
        # Scaling the last projection's weights takes less time and memory than scaling its result.
        parameters[f"{last}.weight"] = parameters[f"{last}.weight"] * gamma[:, None]
        parameters[f"{last}.bias"] = parameters[f"{last}.bias"] * gamma
    affine = (None, None) if norm is None else (norm.weight, norm.bias)
    values = [value.to(dtype) for value in parameters.values()]
    # The types are what autocast would make of them.
    with torch.autocast(x.device.type, enabled=False):
        return function.apply(layer, norm, tuple(parameters), x, *affine, *values)


def _as_in_forward_pass(backward: Callable[[Any, Tensor], tuple]) -> Callable[[Any, Tensor], tuple]:
    """A backward pass in the types of the forward pass, also if it is called where autocast is on."""

    @wraps(backward)
    def run(ctx: Any, gradient: Tensor) -> tuple:
        with torch.autocast(gradient.device.type, enabled=False):
            return backward(ctx, gradient)

    return run


class _Modulate(Function):
    """Norm and focal modulation."""

    @staticmethod
    def forward(
        ctx: Any, layer: nn.Module, norm: nn.LayerNorm | None, names: tuple[str, ...], x: Tensor, *parameters: Tensor
    ) -> Tensor:
        p = _Parameters(layer, norm, names, parameters)
        n, height, width, dim = x.shape
        flat = x.reshape(n, height * width, dim)
        hidden = 4 * dim

        query, context, result = (flat.new_empty(flat.shape, dtype=p.dtype) for _ in range(3))
        gates = flat.new_empty(n, height * width, layer.focal_level + 1, dtype=p.dtype)
        weights = p["f.weight"].split([dim, dim, layer.focal_level + 1])
        biases = p["f.bias"].split([dim, dim, layer.focal_level + 1]) if "f.bias" in names else [None] * 3
        for tile in tiles(flat, hidden):
            normed = p.normalize(flat[tile])
            linear(normed, weights[0], biases[0], out=query[tile])
            linear(normed, weights[1], biases[1], out=context[tile])
            gates[tile] = F.linear(normed, weights[2], biases[2])

        convolved, activated = [], context.view(x.shape)
        gathered: Any = None
        for level in range(layer.focal_level):
            last, activated, gathered = add_level(activated, p.kernel(level), gates, level, gathered)
            convolved.append(last)
        mean = activated.mean((1, 2)).unsqueeze(1)
        gathered = gathered.view(flat.shape).addcmul_(F.gelu(mean), gates[..., -1:])
        if layer.normalize_modulator:
            gathered /= layer.focal_level + 1

        for tile in tiles(flat, hidden):
            modulated = linear(gathered[tile], p["h.weight"].flatten(1), p["h.bias"]).mul_(query[tile])
            if layer.ln is not None:
                modulated = F.layer_norm(modulated, (dim,), p["ln.weight"], p["ln.bias"], layer.ln.eps)
            linear(modulated, p["proj.weight"], p["proj.bias"], out=result[tile])

        p.keep(ctx)
        ctx.save_for_backward(x, *parameters, query, context, gates, mean, *convolved)
        return result.view(x.shape)

    @staticmethod
    @_as_in_forward_pass
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            return _differentiable_backward(ctx, gradient)
        # Unpacked once: with activation checkpointing, asking for them computes them.
        saved, inputs = ctx.saved_tensors, len(ctx.needs_input_grad) - 3
        (x, *parameters), (query, context, gates, mean, *convolved) = saved[:inputs], saved[inputs:]
        layer = ctx.layer
        p = _Parameters(layer, ctx.norm, ctx.names, parameters)
        sums = _Sums(p, ctx.needs_input_grad[4:])
        n, height, width, dim = x.shape
        flat, gradient = x.reshape(n, height * width, dim), gradient.reshape(n, height * width, dim)
        levels = [level.reshape(flat.shape) for level in convolved]
        to_query, to_gathered, to_gates = _through_gating(p, sums, gradient, query, gates, levels, F.gelu(mean))

        # Back through the levels, the widest first.
        to_mean = aten.gelu_backward(torch.bmm(gates[..., -1:].transpose(1, 2), to_gathered), mean)
        to_context = to_mean / (height * width)
        for level in reversed(range(layer.focal_level)):
            to_convolved = _through_level(levels[level], to_context, to_gathered, gates, to_gates, level).view(x.shape)
            source = F.gelu(convolved[level - 1]) if level else context.view(x.shape)
            name = f"focal_layers.{level}.0.weight"
            if sums.wants(name):
                sums.add(name, depthwise_weight_gradient(to_convolved, source, p[name]))
            to_context = depthwise_input_gradient(to_convolved, source, p[name]).reshape(flat.shape)

        to_x = torch.empty_like(flat)
        for tile in tiles(flat, _BACKWARD_WIDTHS * dim):
            to_projected = torch.cat([to_query[tile], to_context[tile], to_gates[tile]], -1)
            to_x[tile] = sums.through_norm_and_linear("f", to_projected, flat[tile])
        return None, None, None, to_x.view(x.shape), *sums.in_order()


def _through_gating(
    p: _Parameters,
    sums: _Sums,
    gradient: Tensor,
    query: Tensor,
    gates: Tensor,
    levels: list[Tensor],
    overall: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """From the gradient of the modulation's result `(N, P, C)` to those of query, gathered context and gates.

    Triton's kernels leave the gradients of the levels' gates to `_through_level`.
    """
    fused = triton_kernels(query)
    layer, dim = p.layer, query.shape[-1]
    scale = 1 / (layer.focal_level + 1) if layer.normalize_modulator else 1.0
    h_weight = p["h.weight"].flatten(1)
    to_query, to_gathered, to_gates = (torch.empty_like(tensor) for tensor in (query, query, gates))
    for tile in tiles(query, _BACKWARD_WIDTHS * dim):
        gate = gates[tile]
        if fused:
            activated = []
            gathered = fused.gather_again([level[tile] for level in levels], gate)
        else:
            activated = [F.gelu(level[tile]) for level in levels]
            gathered = activated[0] * gate[..., :1]
            for level, value in enumerate(activated[1:], start=1):
                gathered.addcmul_(value, gate[..., level : level + 1])
        gathered.addcmul_(overall[tile[0]], gate[..., -1:])
        gathered *= scale
        modulator = linear(gathered, h_weight, p["h.bias"])
        to_modulated = _through_projection(p, sums, gradient[tile], modulator * query[tile])
        torch.mul(to_modulated, modulator, out=to_query[tile])
        to_modulator = to_modulated.mul_(query[tile])
        sums.add_linear("h", to_modulator, gathered)
        to_gathered[tile] = (to_modulator.flatten(0, 1) @ h_weight).view(gathered.shape).mul_(scale)
        for level, value in enumerate([*activated, overall[tile[0]]], start=len(levels) - len(activated)):
            to_gates[tile][..., level] = (to_gathered[tile] * value).sum(-1)
    return to_query, to_gathered, to_gates


def _through_level(
    convolved: Tensor, to_activated: Tensor, to_gathered: Tensor, gates: Tensor, to_gates: Tensor, level: int
) -> Tensor:
    """Back through gate and GELU of a level: the gradient of its convolution, `(N, P, C)`.

    `to_activated` `(N, P, C)` or `(N, 1, C)` is what its GELU gets from elsewhere than the gathered context.
    """
    if fused := triton_kernels(convolved):
        return fused.level_backward(convolved, to_activated, to_gathered, gates, to_gates, level)
    to_activated = torch.addcmul(to_activated, to_gathered, gates[..., level : level + 1])
    return aten.gelu_backward(to_activated, convolved)


def _through_projection(p: _Parameters, sums: _Sums, gradient: Tensor, modulated: Tensor) -> Tensor:
    """Back through the output projection, and the norm before it where there is one, to the modulated query."""
    to_modulated = gradient @ p["proj.weight"]
    if p.layer.ln is None:
        sums.add_linear("proj", gradient, modulated)
        return to_modulated
    shape, weight, bias = modulated.shape[-1:], p["ln.weight"], p["ln.bias"]
    normed, *statistics = torch.native_layer_norm(modulated, shape, weight, bias, p.layer.ln.eps)
    sums.add_linear("proj", gradient, normed)
    to_modulated, to_weight, to_bias = aten.native_layer_norm_backward(
        to_modulated, modulated, shape, *statistics, weight, bias, [True] * 3
    )
    sums.add("ln.weight", to_weight)
    sums.add("ln.bias", to_bias)
    return to_modulated


class _FeedForward(Function):
    """Norm and MLP."""

    @staticmethod
    def forward(
        ctx: Any, layer: nn.Module, norm: nn.LayerNorm | None, names: tuple[str, ...], x: Tensor, *parameters: Tensor
    ) -> Tensor:
        p = _Parameters(layer, norm, names, parameters)
        flat = x.reshape(x.shape[0], -1, x.shape[-1])
        width = len(p["fc1.weight"])
        hidden = flat.new_empty(*flat.shape[:2], width, dtype=p.dtype)
        result = flat.new_empty(flat.shape, dtype=p.dtype)
        for tile in tiles(flat, width):
            linear(p.normalize(flat[tile]), p["fc1.weight"], p["fc1.bias"], out=hidden[tile])
            activated = F.gelu(hidden[tile], approximate=layer.act.approximate)
            linear(activated, p["fc2.weight"], p["fc2.bias"], out=result[tile])
        p.keep(ctx)
        ctx.save_for_backward(x, *parameters, hidden)
        return result.view(x.shape)

    @staticmethod
    @_as_in_forward_pass
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            return _differentiable_backward(ctx, gradient)
        x, *parameters, hidden = ctx.saved_tensors
        p = _Parameters(ctx.layer, ctx.norm, ctx.names, parameters)
        sums = _Sums(p, ctx.needs_input_grad[4:])
        approximate = ctx.layer.act.approximate
        flat = x.reshape(x.shape[0], -1, x.shape[-1])
        gradient = gradient.reshape(flat.shape)
        to_x = torch.empty_like(flat)
        for tile in tiles(flat, 2 * hidden.shape[-1]):
            sums.add_linear("fc2", gradient[tile], F.gelu(hidden[tile], approximate=approximate))
            to_activated = gradient[tile] @ p["fc2.weight"]
            to_hidden = aten.gelu_backward(to_activated, hidden[tile], approximate=approximate)
            to_x[tile] = sums.through_norm_and_linear("fc1", to_hidden, flat[tile])
        return None, None, None, to_x.view(x.shape), *sums.in_order()


class _Parameters:
    """The parameters of a branch by name, and the norm before it."""

    def __init__(
        self, layer: nn.Module, norm: nn.LayerNorm | None, names: tuple[str, ...], tensors: tuple[Tensor, ...]
    ) -> None:
        self.layer, self.norm, self.names = layer, norm, names
        self.norm_weight, self.norm_bias, *values = tensors
        self._values = dict(zip(names, values, strict=True))
        self.dtype = values[0].dtype

    def __getitem__(self, name: str) -> Tensor:
        return self._values[name]

    def kernel(self, level: int) -> Tensor:
        return self._values[f"focal_layers.{level}.0.weight"]

    def all(self) -> dict[str, Tensor | None]:
        return {"norm.weight": self.norm_weight, "norm.bias": self.norm_bias, **self._values}

    def normalize(self, x: Tensor) -> Tensor:
        """The norm of rows `(..., C)`, if there is one, in the type of the other parameters."""
        if self.norm is None:
            return x.to(self.dtype)
        return self.statistics(x)[0].to(self.dtype)

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The norm of rows `(..., C)`, their means and reciprocal deviations, in the type of the norm."""
        weight = self.norm_weight
        return torch.native_layer_norm(x.to(weight.dtype), weight.shape, weight, self.norm_bias, self.norm.eps)

    def keep(self, ctx: Any) -> None:
        ctx.layer, ctx.norm, ctx.names = self.layer, self.norm, self.names


class _Sums:
    """Gradients of the parameters by name, summed over tiles; of those that nobody wants, none is computed."""

    def __init__(self, parameters: _Parameters, wanted: tuple[bool, ...]) -> None:
        self._parameters = parameters
        names = (name for name, want in zip(parameters.all(), wanted, strict=True) if want)
        self._sums: dict[str, Tensor | None] = dict.fromkeys(names)

    def wants(self, name: str) -> bool:
        return name in self._sums

    def add(self, name: str, value: Tensor) -> None:
        """Add to the gradient of a parameter a tensor of its shape, new, as nobody else may write to it afterwards."""
        if not self.wants(name):
            return
        total = self._sums[name]
        if total is not None:
            total += value
            return
        # Sums over many tiles need more digits than half precision has.
        value = value.to(torch.promote_types(value.dtype, torch.float32))
        strides = self._parameters.all()[name].stride()
        if value.stride() != strides:
            # Gradients that lie as their parameters do need not be copied by who collects them.
            value = value.new_empty_strided(value.shape, strides).copy_(value)
        self._sums[name] = value

    def add_linear(self, name: str, gradient: Tensor, x: Tensor) -> None:
        """Add what a linear layer's weight and bias get from rows of its result's gradient and of its input."""
        gradient, x = gradient.flatten(0, -2), x.flatten(0, -2)
        weight, bias = f"{name}.weight", f"{name}.bias"
        if self.wants(weight):
            total = self._sums[weight]
            if total is not None and total.dtype == x.dtype:
                total.flatten(1).addmm_(gradient.t(), x)
            else:
                self.add(weight, (gradient.t() @ x).view(self._parameters[weight].shape))
        if self.wants(bias):
            self.add(bias, gradient.sum(0, dtype=torch.promote_types(gradient.dtype, torch.float32)))

    def through_norm_and_linear(self, name: str, gradient: Tensor, x: Tensor) -> Tensor:
        """Go back through a linear layer and the norm before it; returns the gradient of the norm's input `x`."""
        p = self._parameters
        to_normed = gradient @ p[f"{name}.weight"]
        if p.norm is None:
            self.add_linear(name, gradient, x.to(p.dtype))
            return to_normed
        normed, *statistics = p.statistics(x)
        self.add_linear(name, gradient, normed.to(p.dtype))
        weight, bias = p.norm_weight, p.norm_bias
        to_x, to_weight, to_bias = aten.native_layer_norm_backward(
            to_normed.to(weight.dtype), x.to(weight.dtype), weight.shape, *statistics, weight, bias, [True] * 3
        )
        self.add("norm.weight", to_weight)
        self.add("norm.bias", to_bias)
        return to_x

    def in_order(self) -> list[Tensor | None]:
        """The gradients of all parameters in their types; None for those that nobody wants."""
        sums = [(self._sums.get(name), value) for name, value in self._parameters.all().items()]
        return [None if total is None or value is None else total.to(value.dtype) for total, value in sums]


def _differentiable_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients as differentiable functions themselves: those of the plain formulation."""
    wanted = ctx.needs_input_grad[3:]
    inputs = ctx.saved_tensors[: len(wanted)]
    x, norm_weight, norm_bias, *values = inputs
    with torch.enable_grad():
        normed = x
        if ctx.norm is not None:
            normed = F.layer_norm(x.to(norm_weight.dtype), norm_weight.shape, norm_weight, norm_bias, ctx.norm.eps)
        named = dict(zip(ctx.names, values, strict=True))
        result = torch.func.functional_call(ctx.layer, named, (normed.to(values[0].dtype),))
    needed = [value for value, want in zip(inputs, wanted, strict=True) if want]
    found = iter(torch.autograd.grad(result, needed, gradient, create_graph=True, allow_unused=True))
    return None, None, None, *(next(found) if want else None for want in wanted)
