"""The faster of several kernels for the same result: projections and depth-wise convolutions with their gradients.

Maps are `(N, H, W, C)` here, rows of channels `(..., C)`. Which kernel is faster was measured with
`tools/benchmark.py` and is noted beside each choice; on devices without a note, torch's own choice stands.
"""

from __future__ import annotations

import os
import platform
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from focalnet_backbone.fast import native
from focalnet_backbone.system.switches import read_variable

# oneDNN's forward kernel for depth-wise convolutions spills its registers from this size on, and the one for gradients
# of the input, which computes the same with a mirrored kernel, does not: 2.3 ms and 1.3 ms for 13x13 on 32x32x384.
_MIRRORED_FROM = 11
# The size at which the mirrored kernel is faster even than one that applies GELU to what it has just computed. oneDNN
# takes other kernels then, which spill at this size alone: 6.7 and 3.5 ms for 128x128x96, and 3.5 and 4.1 ms for 13x13.
_MIRRORED_WITH_GELU = 11
# In bfloat16, oneDNN's gradients of depth-wise convolutions, and from the size above their results too, take twice as
# long as in float32, conversions included.
_FLOAT32_GRADIENTS_FROM = 5
# Up to this size oneDNN has a kernel of its own for the weights' gradient.
_OWN_WEIGHT_GRADIENT_UP_TO = 3
# Positions whose contributions to the weights' gradient are summed in one call, at most.
_GRADIENT_TILE = 2048
_TRITON_TYPES = (torch.float32, torch.bfloat16, torch.float16)


TRITON_SWITCH = "FOCALNET_TRITON"
"""The environment variable that asks for Triton's kernels on a GPU: 1 for yes, 0 or nothing for no."""


def triton_kernels(x: Tensor) -> ModuleType | None:
    """The kernels that Triton makes, if maps like `x` are to be computed by them: on a GPU, where that is asked for.

    Not by default, as they have not been measured on one yet. Triton's interpreter runs them on the CPU.

    Raises:
        ImportError: they are asked for, and Triton is not installed.
        ValueError: the environment variable has another value than 0 and 1.
    """
    asked = read_variable(TRITON_SWITCH, ("0", "1"), "0")
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if asked != "1" or not (x.is_cuda or interpreted) or x.dtype not in _TRITON_TYPES:
        return None
    try:
        from focalnet_backbone.fast import triton_kernels
    except ModuleNotFoundError as error:
        raise ImportError(f"{TRITON_SWITCH}=1 asks for Triton, which is not installed") from error
    return triton_kernels


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    base: Tensor | None = None,
    out: Tensor | None = None,
    packed: Tensor | None = None,
) -> Tensor:
    """Map rows `(..., C)` to `(..., D)` by `weight` `(D, C)`; added to `base`, and written to `out`, if given.

    `packed` is the weight in oneDNN's layout, if there is one: see `packing`.
    """
    rows = x.reshape(-1, x.shape[-1])
    if packed is not None:
        multiply = torch.ops.mkldnn._linear_pointwise
        if base is None:
            y = multiply(rows, packed, bias, "none", [], "")
        else:
            y = multiply.binary(rows, base.reshape(-1, len(weight)), packed, bias, "add")
        y = y.view(*x.shape[:-1], len(weight))
        return y if out is None else out.copy_(y)
    if base is not None:
        if out is None:
            # Of the usual strides, whatever the base's are.
            out = base.new_empty(base.shape)
        # A bias is copied to all rows in any case. This way, the base comes with it.
        torch.add(base, 0.0 if bias is None else bias, out=out)
        out.view(-1, len(weight)).addmm_(rows, weight.t())
        return out
    if out is None:
        return F.linear(x, weight, bias)
    if bias is None:
        torch.mm(rows, weight.t(), out=out.view(-1, len(weight)))
    else:
        torch.addmm(bias, rows, weight.t(), out=out.view(-1, len(weight)))
    return out


def depthwise(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve each channel of `(N, H, W, C)` with its odd kernel of `(C, 1, k, k)`, padded to the same size."""
    if (compiled := native.depthwise(x, kernel)) is not None:
        return compiled
    size = kernel.shape[-1]
    maps = x.permute(0, 3, 1, 2)
    settings = {"padding": size // 2, "groups": len(kernel)}
    if size >= _MIRRORED_FROM and _uses_onednn(x):
        with torch.autocast("cpu", enabled=False):
            y = F.conv_transpose2d(maps.float(), kernel.float().flip(2, 3), **settings).to(x.dtype)
    else:
        y = F.conv2d(maps, kernel, **settings)
    return y.permute(0, 2, 3, 1)


def depthwise_gelu(x: Tensor, kernel: Tensor) -> Tensor:
    """GELU of `depthwise`."""
    if (compiled := native.depthwise(x, kernel, gelu=True)) is not None:
        return compiled
    size = kernel.shape[-1]
    if size == _MIRRORED_WITH_GELU or not _has_fused_activations(x):
        return torch.ops.aten.gelu_(depthwise(x, kernel))
    padding, ones, maps = [size // 2] * 2, [1, 1], x.permute(0, 3, 1, 2)
    convolve = torch.ops.mkldnn._convolution_pointwise
    return convolve(maps, kernel, None, padding, ones, ones, len(kernel), "gelu", [], "none").permute(0, 2, 3, 1)


def add_level(
    x: Tensor, kernel: Tensor, gates: Tensor, level: int, gathered: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """A focal level: `depthwise`, its GELU, and the context gathered so far with it, weighed by its gate.

    Args:
        x: the context of the level before, `(N, H, W, C)`.
        kernel: `(C, 1, k, k)`.
        gates: `(N, H * W, L + 1)`.
        level: which of the gates.
        gathered: `(N, H, W, C)`, which is added to in place; None at the first level.
    """
    if fused := triton_kernels(x):
        return fused.add_level(x, kernel, gates, level, gathered, keep=True)
    convolved = depthwise(x, kernel)
    activated = F.gelu(convolved)
    gate = gates.view(*x.shape[:3], -1)[..., level : level + 1]
    return convolved, activated, activated * gate if gathered is None else gathered.addcmul_(activated, gate)


def depthwise_input_gradient(gradient: Tensor, x: Tensor, kernel: Tensor) -> Tensor:
    """The gradient `(N, H, W, C)` of `depthwise` with respect to its input, for the gradient of its result."""
    if fused := triton_kernels(x):
        return fused.depthwise_input_gradient(gradient, kernel)
    if (compiled := native.depthwise(gradient, kernel, mirrored=True)) is not None:
        return compiled
    dtype = x.dtype
    if kernel.shape[-1] >= _FLOAT32_GRADIENTS_FROM and _uses_onednn(x):
        gradient, x, kernel = gradient.float(), x.float(), kernel.float()
    return _convolution_backward(gradient, x, kernel, (True, False))[0].permute(0, 2, 3, 1).to(dtype)


def depthwise_weight_gradient(gradient: Tensor, x: Tensor, kernel: Tensor) -> Tensor:
    """The gradient `(C, 1, k, k)` of `depthwise` with respect to its kernel, for the gradient of its result.

    It is itself a convolution: of the input, with the result's gradient as a kernel as large as the map. oneDNN's
    forward kernel does that 5 to 50 times as fast as what it has for this gradient (13x13 on 16x16x768: 2 and 100 ms).
    """
    if fused := triton_kernels(x):
        return fused.depthwise_weight_gradient(gradient, x, kernel)
    size = kernel.shape[-1]
    if size <= _OWN_WEIGHT_GRADIENT_UP_TO or not _uses_onednn(x) or not x.numel():
        return _convolution_backward(gradient, x, kernel, (False, True))[1]
    dtype, gradient, x = kernel.dtype, gradient.float(), x.float()
    reach = size // 2
    _, height, width, channels = x.shape
    padded = F.pad(x, (0, 0, reach, reach, reach, reach)).permute(0, 3, 1, 2)
    gradient = gradient.permute(0, 3, 1, 2)
    columns = min(width, 128)
    rows = max(1, min(16, _GRADIENT_TILE // columns))
    total = kernel.new_zeros(1, channels, size, size, dtype=torch.float32)
    for n in range(len(x)):
        for top in range(0, height, rows):
            for left in range(0, width, columns):
                tile = gradient[n : n + 1, :, top : top + rows, left : left + columns]
                bottom, right = top + tile.shape[2] + 2 * reach, left + tile.shape[3] + 2 * reach
                window = padded[n : n + 1, :, top:bottom, left:right]
                total += F.conv2d(window, tile.transpose(0, 1), groups=channels)
    return total.transpose(0, 1).to(dtype)


def _convolution_backward(gradient: Tensor, x: Tensor, kernel: Tensor, wanted: tuple[bool, bool]) -> tuple:
    padding = [kernel.shape[-1] // 2] * 2
    gradient, x = gradient.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2)
    return torch.ops.aten.convolution_backward(
        gradient, x, kernel, None, [1, 1], padding, [1, 1], False, [0, 0], len(kernel), [*wanted, False]
    )


def _uses_onednn(x: Tensor) -> bool:
    mkldnn = torch.backends.mkldnn
    usable = mkldnn.is_available() and mkldnn.enabled
    return usable and x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)


def _has_fused_activations(x: Tensor) -> bool:
    """Whether oneDNN applies activations to what it has just computed. Measured on x86 only."""
    if not _uses_onednn(x) or platform.machine() not in ("x86_64", "AMD64"):
        return False
    return x.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
