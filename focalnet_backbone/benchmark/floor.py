"""The floor: a model's convolutions and matrix products alone, back to back, each by the fastest kernel there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focalnet_backbone.benchmark.contenders import Contender
from focalnet_backbone.benchmark.timing import calls_per_timing, time_once
from focalnet_backbone.fast.kernels import depthwise

_TRIALS = 2


def make_floor(contender: Contender, x: Tensor) -> Callable[[], None]:
    """A function that runs the kernels of one forward pass of our model on `x`, and nothing else."""
    calls: Counter[tuple] = Counter()
    modules: dict[tuple, nn.Module] = {}

    def note(module: nn.Module, inputs: tuple[Tensor], _: Tensor) -> None:
        key = (type(module), *module.weight.shape, getattr(module, "stride", None), *inputs[0].shape)
        calls[key] += 1
        modules[key] = module

    layers = [module for module in contender.model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.no_grad():
            contender.run(x)
    finally:
        for handle in handles:
            handle.remove()
    with torch.no_grad():
        kernels = [(_fastest_kernel(modules[key], _input_shape(key), x), count) for key, count in calls.items()]

    def run() -> None:
        for kernel, count in kernels:
            for _ in range(count):
                kernel()

    return run


def _input_shape(key: tuple) -> tuple[int, ...]:
    return key[-4:]


def _fastest_kernel(module: nn.Module, shape: tuple[int, ...], like: Tensor) -> Callable[[], Tensor]:
    x = torch.randn(shape, device=like.device, dtype=module.weight.dtype)
    if isinstance(module, nn.Conv2d):
        x = x.contiguous(memory_format=torch.channels_last)
    dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
    x, weight = x.to(dtype), module.weight.detach().to(dtype)
    bias = None if module.bias is None else module.bias.detach().to(dtype)
    candidates = _candidates(module, x, weight, bias)
    best = {}
    for candidate in candidates:
        calls = calls_per_timing(candidate, x.device)
        best[candidate] = min(time_once(candidate, x.device, calls) for _ in range(_TRIALS))
    return min(best, key=best.get)


def _candidates(module: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> list[Callable[[], Tensor]]:
    if isinstance(module, nn.Linear) or module.kernel_size == (1, 1):
        rows = x if isinstance(module, nn.Linear) else x.permute(0, 2, 3, 1)
        maps, matrix = rows.permute(0, 3, 1, 2), weight.flatten(1)
        return [lambda: F.linear(rows, matrix, bias), lambda: F.conv2d(maps, matrix[:, :, None, None], bias)]
    plain = [lambda: F.conv2d(x, weight, bias, module.stride, module.padding, groups=module.groups)]
    if module.groups == 1:
        return plain
    planes = x.contiguous()
    return [
        *plain,
        lambda: F.conv2d(planes, weight, bias, module.stride, module.padding, groups=module.groups),
        lambda: depthwise(x.permute(0, 2, 3, 1), weight),
    ]
