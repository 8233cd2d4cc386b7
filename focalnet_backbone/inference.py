"""A block without gradients: the plain formulation's arithmetic, tile by tile, with few and small new tensors.

All but the depth-wise convolutions and the global average acts on each position alone. So everything before them is
done for one tile of positions after the other, and everything after them too, each tile staying in the processor's
cache from the norm to the residual sum. What exists of full size is the input, the context, the gathered context and
the output; the MLP's hidden layer never does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focalnet_backbone.kernels import depthwise, linear

if TYPE_CHECKING:
    from focalnet_backbone.blocks import FocalNetBlock

# Bytes of a tile's hidden layer on the CPU: about the second-level cache of two cores.
_TILE_BYTES = 2**21
# Matrix products of fewer rows are slow.
_MIN_ROWS = 512


def tiles(x: Tensor, hidden: int) -> Iterator[tuple[slice, slice]]:
    """Cut positions `(N, P, ...)` into tiles for a hidden layer of that width: slices of N and of P.

    A tile is part of one sample, or several whole ones, so that it is contiguous. On a GPU, all is one tile.
    """
    n, positions = x.shape[:2]
    if x.device.type != "cpu":
        yield slice(0, n), slice(0, positions)
        return
    size = max(_MIN_ROWS, _TILE_BYTES // (hidden * x.element_size()))
    # Of equal size, so that the last one is no remnant.
    parts = max(1, round(positions / size))
    length = -(-positions // parts)
    samples = max(1, size // positions) if parts == 1 else 1
    for first in range(0, n, samples):
        for start in range(0, positions, length):
            yield slice(first, first + samples), slice(start, start + length)


def compute_dtype(x: Tensor, weight: Tensor) -> torch.dtype:
    """The type that matrix products and convolutions have: the weights', or what autocast makes of it."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def run_block(block: FocalNetBlock, x: Tensor) -> Tensor:
    """What the block makes of `(N, H, W, C)`, for stock submodules in eval mode; keeps nothing for a backward pass."""
    modulation, mlp = block.modulation, block.mlp
    n, height, width, dim = x.shape
    dtype = compute_dtype(x, modulation.f.weight)

    def cast(parameter: Tensor | None) -> Tensor | None:
        return None if parameter is None else parameter.to(dtype)

    f_weight, f_bias = cast(modulation.f.weight), cast(modulation.f.bias)
    split = [dim, dim, modulation.focal_level + 1]
    query_weight, context_weight, gates_weight = f_weight.split(split)
    query_bias, context_bias, gates_bias = [None] * 3 if f_bias is None else f_bias.split(split)
    h_weight, h_bias = cast(modulation.h.weight).flatten(1), cast(modulation.h.bias)
    proj_weight, proj_bias = cast(modulation.proj.weight), cast(modulation.proj.bias)
    fc1_weight, fc1_bias = cast(mlp.fc1.weight), cast(mlp.fc1.bias)
    fc2_weight, fc2_bias = cast(mlp.fc2.weight), cast(mlp.fc2.bias)
    kernels = [cast(layer[0].weight) for layer in modulation.focal_layers]

    x = x.reshape(n, height * width, dim)
    hidden = len(fc1_weight)
    pre = not block.use_post_layernorm

    query, context = x.new_empty(x.shape, dtype=dtype), x.new_empty(x.shape, dtype=dtype)
    gates = x.new_empty(*x.shape[:2], modulation.focal_level + 1, dtype=dtype)
    for tile in tiles(x, hidden):
        normed = (_norm(block.norm1, x[tile]) if pre else x[tile]).to(dtype)
        linear(normed, query_weight, query_bias, out=query[tile])
        linear(normed, context_weight, context_bias, out=context[tile])
        gates[tile] = F.linear(normed, gates_weight, gates_bias)

    gathered = _gather(context.view(n, height, width, dim), gates.view(n, height, width, -1), kernels)
    del context
    if modulation.normalize_modulator:
        gathered /= modulation.focal_level + 1
    gathered = gathered.view(n, height * width, dim)

    # The result takes the place of the query, tile by tile, unless autocast wants it in another type. Buffers that all
    # tiles share spare the system from finding memory for each.
    out, buffers = query, None
    for tile in tiles(x, hidden):
        if buffers is None:
            # No tile is larger than the first.
            buffers = [x.new_empty(*x[tile].shape[:2], channels, dtype=dtype) for channels in (dim, hidden)]
        samples, positions = x[tile].shape[:2]
        modulated, activated = (buffer[:samples, :positions] for buffer in buffers)
        linear(gathered[tile], h_weight, h_bias, out=modulated).mul_(query[tile])
        if modulation.ln is not None:
            modulated = _norm(modulation.ln, modulated).to(dtype)
        total = _add_branch(x[tile], modulated, proj_weight, proj_bias, None if pre else block.norm1, block.gamma_1)
        if out.dtype != total.dtype:
            out = query.to(total.dtype)
        normed = (_norm(block.norm2, total) if pre else total).to(dtype)
        gelu_(linear(normed, fc1_weight, fc1_bias, out=activated), mlp.act.approximate)
        norm = None if pre else block.norm2
        _add_branch(total, activated, fc2_weight, fc2_bias, norm, block.gamma_2, out=out[tile])
    return out.view(n, height, width, dim)


def _add_branch(
    base: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm: nn.LayerNorm | None,
    gamma: Tensor | None,
    out: Tensor | None = None,
) -> Tensor:
    """`base` plus a linear layer of `x`, through a norm and scaled if those are given."""
    if norm is None and gamma is None and base.dtype == x.dtype:
        return linear(x, weight, bias, base=base, out=out)
    branch = linear(x, weight, bias)
    if norm is not None:
        branch = _norm(norm, branch)
    return torch.add(base, branch if gamma is None else gamma * branch, out=out)


def _gather(context: Tensor, gates: Tensor, kernels: list[Tensor]) -> Tensor:
    """Equations 4 and 5 on maps `(N, H, W, C)` with gates `(N, H, W, L + 1)`."""
    gathered = None
    for level, kernel in enumerate(kernels):
        context = gelu_(depthwise(context, kernel))
        gate = gates[..., level : level + 1]
        gathered = context * gate if gathered is None else gathered.addcmul_(context, gate)
    return gathered.addcmul_(F.gelu(context.mean((1, 2), keepdim=True)), gates[..., -1:])


def _norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def gelu_(x: Tensor, approximate: str = "none") -> Tensor:
    """GELU in place."""
    return torch.ops.aten.gelu_(x, approximate=approximate)
