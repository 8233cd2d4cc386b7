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

from focalnet_backbone.fast.dispatch import named_parameters
from focalnet_backbone.fast.kernels import depthwise_gelu, linear, triton_kernels
from focalnet_backbone.fast.packing import PackedWeights, can_pack

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
    if not torch.compiler.is_compiling():
        return compute_block(block, x)
    parameters, *settings = _settings(block)
    return _compute_as_operator(x, list(parameters.values()), " ".join(parameters), *settings)


def compute_block(block: nn.Module, x: Tensor) -> Tensor:
    """The same, whether or not a compiler is at work."""
    return _compute(x, _Block(x, *_settings(block), block.packed_weights))


def _settings(block: nn.Module) -> tuple[dict[str, Tensor], list[float], bool, bool, str]:
    norms = (block.norm1, block.norm2, block.modulation.ln)
    return (
        named_parameters(block),
        [norm.eps for norm in norms if norm is not None],
        block.modulation.normalize_modulator,
        block.use_post_layernorm,
        block.mlp.act.approximate,
    )


def _compute(x: Tensor, block: _Block) -> Tensor:
    n, height, width, dim = x.shape
    x = x.reshape(n, height * width, dim)
    query, context, gates = block.project(x)
    contexts, gathered = [], None
    context = context.view(n, height, width, dim)
    fused = triton_kernels(context)
    for level, kernel in enumerate(block.kernels):
        if fused:
            _, context, gathered = fused.add_level(context, kernel, gates, level, gathered, keep=False)
        else:
            context = depthwise_gelu(context, kernel)
            contexts.append(context.reshape(x.shape))
    overall = F.gelu(context.mean((1, 2))).unsqueeze(1)
    if gathered is not None:
        contexts = gathered.view(x.shape)
    return block.finish(x, query, gates, contexts, overall).view(n, height, width, dim)


class _Block:
    """A block's parameters and settings, and what it does at each position before and after the contexts."""

    def __init__(
        self,
        x: Tensor,
        p: dict[str, Tensor],
        epsilons: Sequence[float],
        normalize_modulator: bool,
        use_post_layernorm: bool,
        approximate: str,
        packed_weights: PackedWeights | None,
    ) -> None:
        names = ("norm1", "norm2", "modulation.ln")
        self.dtype = compute_dtype(x, p["modulation.f.weight"])
        # Under autocast, norms and scales keep their type.
        if any(v.dtype != self.dtype for v in p.values()):
            p = {k: v if k.startswith(("gamma", *names)) else v.to(self.dtype) for k, v in p.items()}
        self.p = p
        norms = [
            partial(F.layer_norm, normalized_shape=x.shape[-1:], weight=p[f"{n}.weight"], bias=p[f"{n}.bias"], eps=eps)
            for n, eps in zip(names, epsilons, strict=False)
        ]
        self.norm1, self.norm2, self.modulation_norm = [*norms, None][:3]
        self.kernels = [value for name, value in p.items() if name.startswith("modulation.focal_layers.")]
        self.hidden = len(p["mlp.fc1.weight"])
        self.normalize_modulator = normalize_modulator
        self.use_post_layernorm = use_post_layernorm
        self.approximate = approximate
        self.packed_weights = packed_weights if can_pack(x) and self.dtype == x.dtype else None

    def project(self, x: Tensor) -> list[Tensor]:
        """The projection `f` of positions `(N, P, C)`: query and context `(N, P, C)`, gates `(N, P, L + 1)`."""
        dim = x.shape[-1]
        parts = [(0, dim), (dim, 2 * dim), (2 * dim, 2 * dim + len(self.kernels) + 1)]
        cuts = list(tiles(x, self.hidden))
        results = None
        for tile in cuts:
            normed = (x[tile] if self.use_post_layernorm else self.norm1(x[tile])).to(self.dtype)
            if len(cuts) == 1:
                return [self._linear(normed, "modulation.f", part) for part in parts]
            if results is None:
                results = [x.new_empty(*x.shape[:2], last - first, dtype=self.dtype) for first, last in parts]
            for part, result in zip(parts, results, strict=True):
                self._linear(normed, "modulation.f", part, out=result[tile])
        return results

    def finish(
        self, x: Tensor, query: Tensor, gates: Tensor, contexts: list[Tensor] | Tensor, overall: Tensor
    ) -> Tensor:
        """Gating, both projections of the modulation, and the MLP, with their residual sums: `(N, P, C)`.

        `contexts` is of each level, or their sum, weighed by their gates, which is not needed afterwards.
        """
        # The result takes the place of the query, tile by tile, unless autocast wants it in another type. A buffer that
        # all tiles share spares the system from finding memory for each.
        out, buffer = query, None
        for tile in tiles(x, self.hidden):
            if buffer is None:
                # No tile is larger than the first.
                buffer = x.new_empty(x[tile].shape, dtype=self.dtype)
            samples, positions = x[tile].shape[:2]
            gathered = buffer[:samples, :positions]
            if isinstance(contexts, Tensor):
                gathered = contexts[tile]
            else:
                self._gather(gates[tile], [context[tile] for context in contexts], out=gathered)
            self._gather_overall(gates[tile], overall[tile[0]], out=gathered)
            modulated = self._linear(gathered, "modulation.h").mul_(query[tile])
            if self.modulation_norm is not None:
                modulated = self.modulation_norm(modulated).to(self.dtype)
            total = self._add(x[tile], modulated, "modulation.proj", self.norm1, "gamma_1")
            if out.dtype != total.dtype:
                out = query.to(total.dtype)
            normed = (total if self.use_post_layernorm else self.norm2(total)).to(self.dtype)
            activated = self._linear(normed, "mlp.fc1", gelu=True)
            self._add(total, activated, "mlp.fc2", self.norm2, "gamma_2", out=out[tile])
        return out

    def _linear(
        self,
        x: Tensor,
        layer: str,
        rows: tuple[int, int] | None = None,
        *,
        base: Tensor | None = None,
        gelu: bool = False,
        out: Tensor | None = None,
    ) -> Tensor:
        """A linear layer, or some rows of its weight, of `x`: added to `base`, through GELU, and in `out`, if given."""
        weight, bias = self.p[f"{layer}.weight"], self.p.get(f"{layer}.bias")
        if weight.ndim > 2:
            weight = weight.flatten(1)
        if rows is not None:
            weight, bias = weight[slice(*rows)], None if bias is None else bias[slice(*rows)]
        packed = self.packed_weights and self.packed_weights.get(layer, weight, x.shape[:-1].numel())
        y = linear(x, weight, bias, base=base, out=out, packed=packed)
        return torch.ops.aten.gelu_(y, approximate=self.approximate) if gelu else y

    def _gather(self, gates: Tensor, contexts: list[Tensor], out: Tensor) -> None:
        """The contexts of the levels, weighed by their gates (equation 5)."""
        gate = gates.split(1, -1)
        torch.mul(contexts[0], gate[0], out=out)
        for level in range(1, len(contexts)):
            out.addcmul_(contexts[level], gate[level])

    def _gather_overall(self, gates: Tensor, overall: Tensor, out: Tensor) -> None:
        """Add the global context to the gathered one."""
        out.addcmul_(overall, gates[..., -1:])
        if self.normalize_modulator:
            out /= gates.shape[-1]

    def _add(
        self,
        base: Tensor,
        x: Tensor,
        layer: str,
        norm: Callable[[Tensor], Tensor],
        scale: str,
        out: Tensor | None = None,
    ) -> Tensor:
        """`base` plus a linear layer of `x`, through the norm after it and scaled where the block has those."""
        gamma = self.p.get(scale)
        if not self.use_post_layernorm and gamma is None and base.dtype == x.dtype:
            return self._linear(x, layer, base=base, out=out)
        branch = self._linear(x, layer)
        if self.use_post_layernorm:
            branch = norm(branch)
        return torch.add(base, branch if gamma is None else gamma * branch, out=out)


@torch.library.custom_op("focalnet_backbone::block", mutates_args=())
def _compute_as_operator(
    x: Tensor,
    values: Sequence[Tensor],
    names: str,
    epsilons: Sequence[float],
    normalize_modulator: bool,
    use_post_layernorm: bool,
    approximate: str,
) -> Tensor:
    """What a compiler sees of a block, as the loops above are faster than what it would make of them.

    Packed weights are no tensors that it could hand on.
    """
    p = dict(zip(names.split(), values, strict=True))
    return _compute(x, _Block(x, p, epsilons, normalize_modulator, use_post_layernorm, approximate, None))


@_compute_as_operator.register_fake
def _(x: Tensor, *_: object) -> Tensor:
    return x.new_empty(x.shape)
