"""Times of a model's files beside the model itself, eager and compiled."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from focalnet_backbone.benchmark.timing import alternate, summarise
from focalnet_backbone.export.check import example_input
from focalnet_backbone.export.formats import SUFFIXES, Run, open_file, write
from focalnet_backbone.export.sources import Exportable

# After its work is done, onnxruntime's threads look for more for a while, and whoever comes next has fewer processors.
_REST = 0.2

EAGER, COMPILED, INT8 = "eager", "torch.compile", "onnx int8"


def measure_formats(
    exportable: Exportable,
    size: tuple[int, int],
    contenders: Sequence[str],
    folder: Path,
    *,
    rounds: int = 20,
    seconds: float = 30.0,
) -> dict[str, dict[str, Any]]:
    """Time a model on one image of a size, in turns with its files, which take this size alone.

    Args:
        exportable: the model.
        size: height and width.
        contenders: of "torch.compile", the formats of `SUFFIXES`, and "onnx int8": matrix products of 8 bits, whose
            inputs are rounded at each call (`quantize_dynamic` of onnxruntime).
        folder: where the files are written, and those of an earlier run are taken.
        rounds: how often each is called at most.
        seconds: the rounds end after so many.

    Returns:
        By contender, the eager model first: `seconds` (the median), `ratio` to eager with `quartiles`, and
        `difference`, the largest of any output in units of its largest value, or the share of labels that differ.
    """
    images = example_input(exportable, (1, *size))
    module = exportable.module
    runs: dict[str, Run] = {EAGER: lambda x: list(module(x))}
    runs |= {name: _prepare(name, exportable, images, folder) for name in contenders}
    with torch.no_grad():
        expected = runs[EAGER](images)
        differences = {name: _difference(expected, run(images)) for name, run in runs.items()}
        times = alternate(_calls(runs, images), torch.device("cpu"), rounds, seconds, rest=_REST)
    return {name: {**one, "difference": differences[name]} for name, one in summarise(times, EAGER).items()}


def format_formats(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The measurements of `measure_formats` as lines of text."""
    lines = [f"{'':>16} {'ms':>8} {'of eager':>9} {'quartiles':>13} {'difference':>11}"]
    for name, one in results.items():
        low, high = one["quartiles"]
        between = f"{low:.2f} to {high:.2f}"
        lines.append(
            f"{name:>16} {1000 * one['seconds']:8.1f} {one['ratio']:9.2f} {between:>13} {one['difference']:11.1e}"
        )
    return "\n".join(lines)


def _calls(runs: Mapping[str, Run], images: Tensor) -> dict[str, Callable[[], object]]:
    return {name: lambda run=run: run(images) for name, run in runs.items()}


def _prepare(name: str, exportable: Exportable, images: Tensor, folder: Path) -> Run:
    """A function that runs a contender, whose file is written first."""
    if name == COMPILED:
        compiled = torch.compile(exportable.module)
        return lambda x: list(compiled(x))
    target = name.partition(" ")[0]
    path = folder / f"{target}_{'x'.join(map(str, images.shape))}{SUFFIXES[target]}"
    if not path.exists():
        write(exportable, target, path, images, free=False)
    return open_file(target, _quantize(path) if name == INT8 else path)


def _quantize(path: Path) -> Path:
    """Write an ONNX file whose matrix products are of 8 bits beside another."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    smaller = path.with_name(f"int8_{path.name}")
    logging.disable(logging.WARNING)  # It advises to run its own preparation, which finds nothing to do here.
    try:
        quantize_dynamic(path, smaller, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"])
    finally:
        logging.disable(logging.NOTSET)
    return smaller


def _difference(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    largest = 0.0
    for wanted, got in zip(expected, found, strict=True):
        if not wanted.is_floating_point():
            apart = float((wanted != got).float().mean())
        else:
            apart = float((wanted - got).abs().max() / wanted.abs().max())
        largest = max(largest, apart)
    return largest
