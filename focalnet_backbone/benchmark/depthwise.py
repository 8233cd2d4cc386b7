"""Depth-wise convolutions of a network's stages, by each kernel that there is, forward and backward.

    python -m focalnet_backbone.benchmark.depthwise cuda bfloat16
    python -m focalnet_backbone.benchmark.depthwise cpu float32 --map 1x56x56x96 1x14x14x384 --trials 30

On a GPU, which of them is fastest depends on layout, type, size and pass. This is what to choose by.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from focalnet_backbone.benchmark.timing import calls_per_timing, time_once
from focalnet_backbone.fast import kernels
from focalnet_backbone.system.command_line import fail, parse, positive, program
from focalnet_backbone.system.devices import choose_device

SHAPES = ((32, 128, 128, 96), (32, 64, 64, 192), (32, 32, 32, 384), (32, 16, 16, 768))
"""Maps `(N, H, W, C)` of FocalNet-T for 32 images of 512x512."""
SIZES = (3, 9, 13)
PASSES = ("forward", "input gradient", "weight gradient")


def list_ways(shape: Sequence[int], size: int, device: torch.device, dtype: torch.dtype) -> dict[str, list[Callable]]:
    """For each way to compute it, a function for each of `PASSES`."""
    channels = shape[-1]
    x, gradient = (torch.randn(shape, device=device, dtype=dtype) for _ in range(2))
    kernel = torch.randn(channels, 1, size, size, device=device, dtype=dtype)
    last = tuple(t.permute(0, 3, 1, 2) for t in (x, gradient))
    planes = tuple(t.contiguous() for t in last)
    ways = {"channels-last": _passes(*last, kernel), "planes": _passes(*planes, kernel)}
    if device.type == "cuda" and dtype != torch.float64:
        try:
            from focalnet_backbone.fast import triton_kernels
        except ImportError:
            return ways
        ways["Triton"] = [
            lambda: triton_kernels.depthwise(x, kernel),
            lambda: triton_kernels.depthwise_input_gradient(gradient, kernel),
            lambda: triton_kernels.depthwise_weight_gradient(gradient, x, kernel),
        ]
    elif device.type == "cpu":
        ways["ours"] = [
            lambda: kernels.depthwise(x, kernel),
            lambda: kernels.depthwise_input_gradient(gradient, x, kernel),
            lambda: kernels.depthwise_weight_gradient(gradient, x, kernel),
        ]
    return ways


def _passes(x: Tensor, gradient: Tensor, kernel: Tensor) -> list[Callable[[], object]]:
    """PyTorch's own, of maps `(N, C, H, W)` of any layout."""
    padding = [kernel.shape[-1] // 2] * 2

    def backward(wanted: list[bool]) -> object:
        return torch.ops.aten.convolution_backward(
            gradient, x, kernel, None, [1, 1], padding, [1, 1], False, [0, 0], len(kernel), wanted
        )

    return [
        lambda: F.conv2d(x, kernel, padding=padding, groups=len(kernel)),
        lambda: backward([True, False, False]),
        lambda: backward([False, True, False]),
    ]


def measure_depthwise(
    device: torch.device,
    dtype: torch.dtype,
    shapes: Sequence[Sequence[int]] = SHAPES,
    sizes: Sequence[int] = SIZES,
    trials: int = 3,
) -> Iterator[str]:
    """Yield the lines of a table in Markdown: milliseconds of each way, the median of the trials, pass by pass."""
    names: list[str] = []
    for shape in shapes:
        for size in sizes:
            ways = list_ways(shape, size, device, dtype)
            if not names:
                names = list(ways)
                yield "| map | kernel | pass | " + " | ".join(names) + " |"
                yield "| --- | --- | --- |" + " ---: |" * len(names)
            for number, name in enumerate(PASSES):
                times = [_milliseconds(functions[number], device, trials) for functions in ways.values()]
                place = f"{'x'.join(map(str, shape))} | {size}x{size} | {name}"
                yield f"| {place} | " + " | ".join(f"{time:.3g}" for time in times) + " |"


def _milliseconds(run: Callable[[], object], device: torch.device, trials: int) -> float:
    calls = calls_per_timing(run, device)
    return 1e3 * median(time_once(run, device, calls) for _ in range(trials))


def _map(text: str) -> tuple[int, ...]:
    sizes = tuple(map(positive, text.split("x")))
    if len(sizes) != 4:
        raise argparse.ArgumentTypeError(f"expected NxHxWxC, got {text!r}")
    return sizes


@program("depthwise.py")
def main() -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("device", help="cpu, cuda, ...")
    parser.add_argument("dtype", choices=["float32", "bfloat16", "float16"])
    parser.add_argument(
        "--map", nargs="+", type=_map, default=SHAPES, metavar="NxHxWxC", help="FocalNet-T's by default"
    )
    parser.add_argument("--trials", type=positive, default=3, help="of which the median is told (default: 3)")
    args = parse(parser)
    try:
        device = choose_device(args.device)
    except ValueError as error:
        return fail("depthwise.py", error)
    for line in measure_depthwise(device, getattr(torch, args.dtype), args.map, trials=args.trials):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
