"""A block without gradients: the plain formulation's arithmetic, tile by tile, with few and small new tensors.

All but the depth-wise convolutions and the global average acts on each position alone. So everything before them is
done for one tile of positions after the other, and everything after them too, each tile staying in the processor's
cache from the gating to the residual sum. What exists of full size is the input, the query, whose place the output
takes, and the context of each level; the gathered context and the MLP's hidden layer never do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focalnet_backbone.fast.kernels import depthwise_gelu, linear

# Bytes of a tile's hidden layer on the CPU, which a third-level cache holds. Tiles that second-level caches hold (a
# quarter of that) take 8 % longer, as every call has its overhead, and so do tiles four times as large.
_TILE_BYTES = 2**23
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


def run_block(block: nn.Module, x: Tensor) -> Tensor:
    """What the block makes of `(N, H, W, C)`, for stock submodules in eval mode; keeps nothing for a backward pass."""
    parameters = dict(block.named_parameters(remove_duplicate=False))
    norms = (block.norm1, block.norm2, block.modulation.ln)
    compute = _compute_as_operator if torch.compiler.is_compiling() else _compute
    return compute(
        x,
        list(parameters.values()),
        " ".join(parameters),
        [norm.eps for norm in norms if norm is not None],
        block.modulation.normalize_modulator,
        block.use_post_layernorm,
        block.mlp.act.approximate,
    )


def _compute(
    x: Tensor,
    values: Sequence[Tensor],
    names: str,
    epsilons: Sequence[float],
    normalize_modulator: bool,
    use_post_layernorm: bool,
    approximate: str,
) -> Tensor:
    """A block's result from its parameters, whose names are joined by blanks, and its settings."""
    p = dict(zip(names.split(), values, strict=True))
    dtype = compute_dtype(x, p["modulation.f.weight"])
    norm_names = ("norm1", "norm2", "modulation.ln")
    # Under autocast, norms and scales keep their type.
    p = {k: v if k.startswith(("gamma", *norm_names)) else v.to(dtype) for k, v in p.items()}
    norms = [
        partial(
            F.layer_norm, normalized_shape=x.shape[-1:], weight=p[f"{name}.weight"], bias=p[f"{name}.bias"], eps=eps
        )
        for name, eps in zip(norm_names, epsilons, strict=False)
    ]
    norm1, norm2 = norms[:2]
    kernels = [value for name, value in p.items() if name.startswith("modulation.focal_layers.")]
    h_weight, h_bias = p["modulation.h.weight"].flatten(1), p["modulation.h.bias"]
    hidden = len(p["mlp.fc1.weight"])
    n, height, width, dim = x.shape
    x = x.reshape(n, height * width, dim)

    query, context = x.new_empty(x.shape, dtype=dtype), x.new_empty(x.shape, dtype=dtype)
    gates = x.new_empty(*x.shape[:2], len(kernels) + 1, dtype=dtype)
    split = [dim, dim, len(kernels) + 1]
    query_weight, context_weight, gates_weight = p["modulation.f.weight"].split(split)
    query_bias, context_bias, gates_bias = (
        p["modulation.f.bias"].split(split) if "modulation.f.bias" in p else [None] * 3
    )
    for tile in tiles(x, hidden):
        normed = (x[tile] if use_post_layernorm else norm1(x[tile])).to(dtype)
        linear(normed, query_weight, query_bias, out=query[tile])
        linear(normed, context_weight, context_bias, out=context[tile])
        linear(normed, gates_weight, gates_bias, out=gates[tile])

    contexts = []
    context = context.view(n, height, width, dim)
    for kernel in kernels:
        context = depthwise_gelu(context, kernel)
        contexts.append(context.reshape(x.shape))
    overall = F.gelu(context.mean((1, 2))).unsqueeze(1)

    # The result takes the place of the query, tile by tile, unless autocast wants it in another type. Buffers that all
    # tiles share spare the system from finding memory for each.
    out, buffers = query, None
    for tile in tiles(x, hidden):
        if buffers is None:
            # No tile is larger than the first.
            buffers = [x.new_empty(*x[tile].shape[:2], channels, dtype=dtype) for channels in (dim, dim, hidden)]
        samples, positions = x[tile].shape[:2]
        gathered, modulated, activated = (buffer[:samples, :positions] for buffer in buffers)
        gate = gates[tile].split(1, -1)
        torch.mul(contexts[0][tile], gate[0], out=gathered)
        for level in range(1, len(kernels)):
            gathered.addcmul_(contexts[level][tile], gate[level])
        gathered.addcmul_(overall[tile[0]], gate[-1])
        if normalize_modulator:
            gathered /= len(kernels) + 1
        linear(gathered, h_weight, h_bias, out=modulated).mul_(query[tile])
        if len(norms) > 2:
            modulated = norms[2](modulated).to(dtype)
        norm, gamma = norm1 if use_post_layernorm else None, p.get("gamma_1")
        total = _add_branch(x[tile], modulated, p["modulation.proj.weight"], p["modulation.proj.bias"], norm, gamma)
        if out.dtype != total.dtype:
            out = query.to(total.dtype)
        normed = (total if use_post_layernorm else norm2(total)).to(dtype)
        linear(normed, p["mlp.fc1.weight"], p["mlp.fc1.bias"], out=activated)
        torch.ops.aten.gelu_(activated, approximate=approximate)
        norm, gamma = norm2 if use_post_layernorm else None, p.get("gamma_2")
        _add_branch(total, activated, p["mlp.fc2.weight"], p["mlp.fc2.bias"], norm, gamma, out=out[tile])
    return out.view(n, height, width, dim)


# What a compiler sees of a block: one operator, as the loops above are faster than what it would make of them.
_compute_as_operator = torch.library.custom_op("focalnet_backbone::block", _compute, mutates_args=())


@_compute_as_operator.register_fake
def _(x: Tensor, *_: object) -> Tensor:
    return x.new_empty(x.shape)


def _add_branch(
    base: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm: Callable[[Tensor], Tensor] | None,
    gamma: Tensor | None,
    out: Tensor | None = None,
) -> Tensor:
    """`base` plus a linear layer of `x`, through a norm and scaled if those are given."""
    if norm is None and gamma is None and base.dtype == x.dtype:
        return linear(x, weight, bias, base=base, out=out)
    branch = linear(x, weight, bias)
    if norm is not None:
        branch = norm(branch)
    return torch.add(base, branch if gamma is None else gamma * branch, out=out)
