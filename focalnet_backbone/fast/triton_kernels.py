"""The depth-wise part of focal modulation on a GPU, fused by Triton: convolution, GELU, gate and sum of a focal level.

Apart, these read and write each map of a level several times, and the memory's speed bounds them. A program here makes
one tile of positions and channels of the result: it adds up the kernel's taps, one load of neighbouring positions each,
and while the sum is in registers applies GELU, writes what the caller asked for and adds to the gathered context.
Neighbouring taps load nearly the same positions, which the first-level cache holds.

Maps are `(N, H, W, C)`, contiguous; positions are counted through all samples. All arithmetic is in float32; a
convolution is rounded to the maps' type before its GELU, as the backward pass knows it only so.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Positions and channels of a tile; channels are read in a row. As many as 128 registers a thread hold, by which four
# programs share a multiprocessor; twice as many take 250. Not yet tuned on a GPU.
_POSITIONS = 16
_CHANNELS = 64
# Positions whose contributions to the weights' gradient one program sums.
_GRADIENT_POSITIONS = 1024

_SQRT_HALF = tl.constexpr(0.7071067811865476)
_DENSITY_AT_ZERO = tl.constexpr(0.3989422804014327)


@triton.jit
def _normal_cdf(x):
    return 0.5 * (1.0 + tl.math.erf(x * _SQRT_HALF))


@triton.jit
def _rows_and_columns(start, offset, height, width):
    """Where in their maps positions from `start` on are: of 64 bits, which are dear to divide, is only the start."""
    column = (start % width).to(tl.int32) + offset
    row = (start // width % height).to(tl.int32) + column // width
    return row % height, column % width


@triton.jit
def _convolve_kernel(
    source,
    weight,
    gates,
    convolved,
    activated,
    gathered,
    positions,
    height,
    width,
    channels,
    gate_stride,
    SIZE: tl.constexpr,
    CONVOLVED: tl.constexpr,
    ACTIVATED: tl.constexpr,
    GATHERED: tl.constexpr,
    FIRST: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """One tile of a level: what of `convolved`, `activated` and `gathered` is wanted."""
    # Offsets into maps of more than 2**31 values need 64 bits.
    start = tl.program_id(0).to(tl.int64) * POSITIONS
    position = start + tl.arange(0, POSITIONS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    row, column = _rows_and_columns(start, tl.arange(0, POSITIONS), height, width)
    inside = position < positions
    place = position[:, None] * channels + channel[None, :]
    total = tl.zeros([POSITIONS, CHANNELS], dtype=tl.float32)
    for tap in range(SIZE * SIZE):
        down, right = tap // SIZE - SIZE // 2, tap % SIZE - SIZE // 2
        # Beyond the map's edges are zeros.
        exists = inside & (row + down >= 0) & (row + down < height) & (column + right >= 0) & (column + right < width)
        neighbour = place + (down * width + right) * channels
        values = tl.load(source + neighbour, mask=exists[:, None] & (channel < channels)[None, :], other=0.0)
        factors = tl.load(weight + tap * channels + channel, mask=channel < channels, other=0.0)
        total += values.to(tl.float32) * factors.to(tl.float32)[None, :]
    mask = inside[:, None] & (channel < channels)[None, :]
    if CONVOLVED:
        tl.store(convolved + place, total.to(convolved.dtype.element_ty), mask=mask)
    if GATHERED:
        # GELU is of what is stored, which is all that the backward pass knows.
        total = total.to(source.dtype.element_ty).to(tl.float32)
        total = (total * _normal_cdf(total)).to(source.dtype.element_ty)
        if ACTIVATED:
            tl.store(activated + place, total, mask=mask)
        gate = tl.load(gates + position * gate_stride, mask=inside, other=0.0)
        product = total.to(tl.float32) * gate.to(tl.float32)[:, None]
        if not FIRST:
            product += tl.load(gathered + place, mask=mask, other=0.0).to(tl.float32)
        tl.store(gathered + place, product.to(gathered.dtype.element_ty), mask=mask)


@triton.jit
def _level_backward_kernel(
    convolved,
    to_activated,
    to_gathered,
    gates,
    to_convolved,
    to_gates,
    positions,
    positions_a_sample,
    channels,
    gate_stride,
    SPREAD: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """One tile of positions with all their channels, as a gate's gradient is a sum over them."""
    position = tl.program_id(0).to(tl.int64) * POSITIONS + tl.arange(0, POSITIONS)
    inside = position < positions
    gate = tl.load(gates + position * gate_stride, mask=inside, other=0.0).to(tl.float32)
    # Of the global average, all positions of a sample get the same gradient.
    origin = position // positions_a_sample if SPREAD else position
    to_gate = tl.zeros([POSITIONS], dtype=tl.float32)
    for start in range(0, channels, CHANNELS):
        channel = start + tl.arange(0, CHANNELS)
        mask = inside[:, None] & (channel < channels)[None, :]
        place = position[:, None] * channels + channel[None, :]
        x = tl.load(convolved + place, mask=mask, other=0.0).to(tl.float32)
        gathering = tl.load(to_gathered + place, mask=mask, other=0.0).to(tl.float32)
        arriving = tl.load(to_activated + origin[:, None] * channels + channel[None, :], mask=mask, other=0.0)
        cdf = _normal_cdf(x)
        slope = cdf + x * _DENSITY_AT_ZERO * tl.exp(-0.5 * x * x)
        result = slope * (arriving.to(tl.float32) + gathering * gate[:, None])
        tl.store(to_convolved + place, result.to(to_convolved.dtype.element_ty), mask=mask)
        to_gate += tl.sum(gathering * (x * cdf), 1)
    tl.store(to_gates + position * gate_stride, to_gate.to(to_gates.dtype.element_ty), mask=inside)


@triton.jit
def _weight_gradient_kernel(
    gradient,
    source,
    sums,
    positions,
    height,
    width,
    channels,
    SIZE: tl.constexpr,
    PART: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """A row of taps of one tile of channels, from one part of the positions, which the cache holds from tap to tap."""
    part = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    down = tl.program_id(2) - SIZE // 2
    for tap in range(SIZE):
        right = tap - SIZE // 2
        total = tl.zeros([CHANNELS], dtype=tl.float32)
        for first in range(0, PART, POSITIONS):
            start = part * PART + first
            position = start + tl.arange(0, POSITIONS)
            row, column = _rows_and_columns(start, tl.arange(0, POSITIONS), height, width)
            exists = (row + down >= 0) & (row + down < height) & (column + right >= 0) & (column + right < width)
            mask = (exists & (position < positions))[:, None] & (channel < channels)[None, :]
            place = position[:, None] * channels + channel[None, :]
            values = tl.load(source + place + (down * width + right) * channels, mask=mask, other=0.0)
            slopes = tl.load(gradient + place, mask=mask, other=0.0)
            total += tl.sum(values.to(tl.float32) * slopes.to(tl.float32), 0)
        sum_place = ((part * SIZE + tl.program_id(2)) * SIZE + tap) * channels + channel
        tl.store(sums + sum_place, total, mask=channel < channels)


def depthwise(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve each channel of `(N, H, W, C)` with its odd kernel of `(C, 1, k, k)`, padded to the same size."""
    result = torch.empty_like(x)
    _convolve(x, kernel, convolved=result)
    return result


def add_level(
    x: Tensor, kernel: Tensor, gates: Tensor, level: int, gathered: Tensor | None, *, keep: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """A focal level: its convolution, its GELU, and the gathered context with it, weighed by its gate.

    Args:
        x: context of the level before, `(N, H, W, C)`.
        kernel: `(C, 1, k, k)`.
        gates: `(N, H * W, L + 1)`.
        level: which of the gates.
        gathered: context gathered before, `(N, H, W, C)`, which is added to in place; None at the first level.
        keep: whether the convolution is wanted, as a backward pass does.

    Returns:
        Three maps `(N, H, W, C)`, the first of them None unless it is kept.
    """
    first = gathered is None
    convolved, activated = torch.empty_like(x) if keep else None, torch.empty_like(x)
    gathered = torch.empty_like(x) if first else gathered
    _convolve(x, kernel, gates[..., level], convolved, activated, gathered, first)
    return convolved, activated, gathered


def gather_again(convolved: list[Tensor], gates: Tensor) -> Tensor:
    """The context `(N, P, C)` that levels gathered, from their convolutions `(N, P, C)` and gates `(N, P, L + 1)`."""
    gathered = torch.empty_like(convolved[0])
    ones = gathered.new_ones(gathered.shape[-1], 1, 1, 1)
    for level, x in enumerate(convolved):
        # A kernel of one tap that is 1 changes nothing.
        _convolve(x.unsqueeze(1), ones, gates[..., level], gathered=gathered, first=level == 0)
    return gathered


def level_backward(
    convolved: Tensor, to_activated: Tensor, to_gathered: Tensor, gates: Tensor, to_gates: Tensor, level: int
) -> Tensor:
    """Back through GELU and gate of a level: the gradient of its convolution, `(N, P, C)`.

    Args:
        convolved: the convolution, `(N, P, C)`.
        to_activated: gradient of its GELU from elsewhere than the gathered context, `(N, P, C)`, or `(N, 1, C)` for all
            positions.
        to_gathered: gradient of the gathered context, `(N, P, C)`.
        gates: `(N, P, L + 1)`.
        to_gates: their gradient, of which the level's part is written.
        level: which of the gates.
    """
    n, positions, channels = convolved.shape
    to_convolved = torch.empty_like(convolved)
    with torch.cuda.device_of(convolved):
        _level_backward_kernel[(triton.cdiv(n * positions, _POSITIONS),)](
            convolved,
            to_activated.contiguous(),
            to_gathered,
            gates[..., level],
            to_convolved,
            to_gates[..., level],
            n * positions,
            positions,
            channels,
            gates.shape[-1],
            to_activated.shape[1] != positions,
            _POSITIONS,
            _CHANNELS,
        )
    return to_convolved


def depthwise_input_gradient(gradient: Tensor, kernel: Tensor) -> Tensor:
    """The gradient `(N, H, W, C)` of `depthwise` with respect to its input: a convolution with the mirrored kernel."""
    return depthwise(gradient, kernel.flip(2, 3))


def depthwise_weight_gradient(gradient: Tensor, x: Tensor, kernel: Tensor) -> Tensor:
    """The gradient `(C, 1, k, k)` of `depthwise` with respect to its kernel, the same in every run."""
    n, height, width, channels = x.shape
    size = kernel.shape[-1]
    parts = triton.cdiv(n * height * width, _GRADIENT_POSITIONS)
    sums = x.new_empty(parts, size * size, channels, dtype=torch.float32)
    with torch.cuda.device_of(x):
        _weight_gradient_kernel[(parts, triton.cdiv(channels, _CHANNELS), size)](
            gradient,
            x,
            sums,
            n * height * width,
            height,
            width,
            channels,
            size,
            _GRADIENT_POSITIONS,
            _POSITIONS,
            _CHANNELS,
        )
    return sums.sum(0).t().reshape(kernel.shape).to(kernel.dtype)


def _convolve(
    x: Tensor,
    kernel: Tensor,
    gates: Tensor | None = None,
    convolved: Tensor | None = None,
    activated: Tensor | None = None,
    gathered: Tensor | None = None,
    first: bool = False,
) -> None:
    """Write those results that are given."""
    n, height, width, channels = x.shape
    positions = n * height * width
    # A tap's weights in a row, as its values are.
    weight = kernel.flatten(1).t().contiguous()
    with torch.cuda.device_of(x):
        _convolve_kernel[(triton.cdiv(positions, _POSITIONS), triton.cdiv(channels, _CHANNELS))](
            x,
            weight,
            gates,
            convolved,
            activated,
            gathered,
            positions,
            height,
            width,
            channels,
            0 if gates is None else gates.stride(-1),
            kernel.shape[-1],
            convolved is not None,
            activated is not None,
            gathered is not None,
            first,
            _POSITIONS,
            _CHANNELS,
        )
