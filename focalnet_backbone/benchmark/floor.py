"""The floor: a model's convolutions and matrix products alone, back to back, each by the fastest kernel there is."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focalnet_backbone.benchmark.contenders import Contender
from focalnet_backbone.benchmark.timing import calls_per_timing, time_once
from focalnet_backbone.fast.kernels import depthwise, linear
from focalnet_backbone.fast.packing import PackedWeights, can_pack

_TRIALS = 2


def make_floor(contender: Contender, x: Tensor) -> Callable[[], None]:
    """A function that runs the kernels of one forward pass of our model on `x`, and nothing else.

    Each layer multiplies by its own weights, which a small image's products read from memory.
    """
    calls: dict[tuple, list[nn.Module]] = {}

    def note(module: nn.Module, inputs: tuple[Tensor], _: Tensor) -> None:
        key = (type(module), *module.weight.shape, getattr(module, "stride", None), *inputs[0].shape)
        calls.setdefault(key, []).append(module)

    layers = [module for module in contender.model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.no_grad():
            contender.run(x)
    finally:
        for handle in handles:
            handle.remove()
    with torch.no_grad():
        kernels = [_fastest_kernels(layers, _input_shape(key), x) for key, layers in calls.items()]

    def run() -> None:
        for kernel in kernels:
            kernel()

    return run


def _input_shape(key: tuple) -> tuple[int, ...]:
    return key[-4:]


def _fastest_kernels(layers: list[nn.Module], shape: tuple[int, ...], like: Tensor) -> Callable[[], None]:
    """What layers of one kind compute for inputs of that shape, one after the other, in the fastest way."""
    x = torch.randn(shape, device=like.device, dtype=layers[0].weight.dtype)
    if isinstance(layers[0], nn.Conv2d):
        x = x.contiguous(memory_format=torch.channels_last)
    dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
    x = x.to(dtype)
    best = {}
    for kernels in zip(*(_candidates(layer, x) for layer in layers), strict=True):

        def run(kernels: tuple[Callable[[], Tensor], ...] = kernels) -> None:
            for kernel in kernels:
                kernel()

        calls = calls_per_timing(run, x.device)
        best[run] = min(time_once(run, x.device, calls) for _ in range(_TRIALS))
    return min(best, key=best.get)


def _candidates(module: nn.Module, x: Tensor) -> list[Callable[[], Tensor]]:
    weight = module.weight.detach().to(x.dtype)
    bias = None if module.bias is None else module.bias.detach().to(x.dtype)
    if isinstance(module, nn.Linear) or module.kernel_size == (1, 1):
        rows = x if isinstance(module, nn.Linear) else x.permute(0, 2, 3, 1)
        maps, matrix = rows.permute(0, 3, 1, 2), weight.flatten(1)
        ways = [lambda: F.linear(rows, matrix, bias), lambda: F.conv2d(maps, matrix[:, :, None, None], bias)]
        packed = PackedWeights().get("", matrix, rows.shape[:-1].numel()) if can_pack(x) else None
        return ways if packed is None else [*ways, lambda: linear(rows, matrix, bias, packed=packed)]
    plain = [lambda: F.conv2d(x, weight, bias, module.stride, module.padding, groups=module.groups)]
    if module.groups == 1:
        return plain
    planes = x.contiguous()
    return [
        *plain,
        lambda: F.conv2d(planes, weight, bias, module.stride, module.padding, groups=module.groups),
        lambda: depthwise(x.permute(0, 2, 3, 1), weight),
    ]
