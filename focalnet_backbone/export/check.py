"""Whether a file gives what the model gives that it was made of."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from focalnet_backbone.export.formats import Run
from focalnet_backbone.export.sources import Exportable
from focalnet_backbone.system.command_line import first_line

TOLERANCE = 1e-3
"""Largest difference that is allowed, in units of the largest value of an output, where that is above 1."""

LABELS_APART = 1e-3
"""Share of whole-number outputs (the class of a pixel) that may differ: those of two classes as good as equal."""

TIE = 1e-5
"""Two classes of a pixel are as good as equal whose logits differ by no more, in units of the largest of all."""

OBJECTS_APART = 0.02
"""Share of a detector's objects that may differ: those which suppress one another, with scores as good as equal."""

FREE_SIZES = ((1, 96, 128), (2, 101, 67), (1, 160, 90))
"""Number, height and width of the images that a file with free sizes is checked on."""

TRACED_SIZE = (2, 112, 144)
"""The size of the example that such a file is made with, which is none of those."""


@dataclass(frozen=True)
class Comparison:
    """A file beside its model, on one input.

    Attributes:
        shape: of the input.
        differences: for each output, the largest difference, or the share of differing whole numbers.
        allowed: for each output, how much it may be.
        eager_ms: time of the model in milliseconds.
        file_ms: time of the file.
    """

    shape: tuple[int, ...]
    differences: dict[str, float]
    allowed: dict[str, float]
    eager_ms: float
    file_ms: float

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        return {
            "shape": list(self.shape),
            "differences": self.differences,
            "allowed": self.allowed,
            "eager_ms": round(self.eager_ms, 2),
            "file_ms": round(self.file_ms, 2),
        }


def example_input(exportable: Exportable, size: tuple[int, int, int], seed: int = 0) -> Tensor:
    """Smooth random images of a size (number, height, width), as the model takes them."""
    number, height, width = size
    generator = torch.Generator().manual_seed(seed)
    channels = 3 if exportable.takes_photos else exportable.channels
    coarse = torch.rand((number, channels, height // 8 + 2, width // 8 + 2), generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    images = images + 0.1 * (torch.rand(images.shape, generator=generator) - 0.5)
    if exportable.takes_photos:
        return (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return (images - 0.45) / 0.225


def compare(exportable: Exportable, run: Run, sizes: list[tuple[int, int, int]]) -> list[Comparison]:
    """Run a file and its model on an input of each size.

    Raises `ValueError` if the file fails at one, or what it gives differs by more than is allowed.
    """
    return [_compare(exportable, run, example_input(exportable, size, seed)) for seed, size in enumerate(sizes, 1)]


def _compare(exportable: Exportable, run: Run, images: Tensor) -> Comparison:
    shape = "x".join(map(str, images.shape))
    with torch.no_grad():
        expected, eager = _timed(exportable.module, images)
        try:
            found, time_of_file = _timed(run, images)
        except Exception as error:  # Each runtime has errors of its own.
            raise ValueError(f"the exported file fails on an input of {shape}: {first_line(error)}") from error
    measure = _compare_objects if exportable.task == "detection" else _compare_outputs
    differences, allowed = measure(exportable.outputs, expected, found, shape)
    return Comparison(tuple(images.shape), differences, allowed, eager, time_of_file)


def _compare_outputs(
    names: Sequence[str], expected: list[Tensor], found: list[Tensor], shape: str
) -> tuple[dict[str, float], dict[str, float]]:
    """Differences and what is allowed of each output. Raises `ValueError` for one that differs by more."""
    differences, allowed = {}, {}
    logits = dict(zip(names, expected, strict=True)).get("logits")
    if logits is not None and logits.shape[1] == 1:  # Of one class against the rest, by a threshold.
        logits = None
    for name, wanted, got in zip(names, expected, found, strict=True):
        if wanted.shape != got.shape:
            raise ValueError(
                f"{name} of the exported file is {tuple(got.shape)} where the model gives {tuple(wanted.shape)}, on an "
                f"input of {shape}"
            )
        if wanted.is_floating_point():
            difference = float((wanted - got).abs().max())
            limit = TOLERANCE * max(1.0, float(wanted.abs().max()))
        else:
            difference, limit = _share_apart(wanted, got, logits if name == "labels" else None), LABELS_APART
        if not difference <= limit:
            raise ValueError(
                f"{name} of the exported file differs by {difference:.2g} from the model's on an input of {shape}, "
                f"where {limit:.2g} is allowed"
            )
        differences[name], allowed[name] = difference, limit
    return differences, allowed


def _share_apart(wanted: Tensor, got: Tensor, logits: Tensor | None) -> float:
    """The share of labels `(N, H, W)` that differ, but for those of logits `(N, classes, H, W)` as good as equal."""
    apart = wanted != got
    if logits is not None:
        margin = logits.gather(1, wanted[:, None]) - logits.gather(1, got[:, None])
        apart &= margin[:, 0] > TIE * max(1.0, float(logits.abs().max()))
    return float(apart.float().mean())


def _compare_objects(
    names: Sequence[str], expected: list[Tensor], found: list[Tensor], shape: str
) -> tuple[dict[str, float], dict[str, float]]:
    """The share of objects that only one of both has, whose order may differ where scores are as good as equal.

    An object is one that the other has if its label is the same, its score, mask and box differ by no more than a float
    may, the box in units of the largest coordinate.
    """
    wanted, got = (dict(zip(names, values, strict=True)) for values in (expected, found))
    unit = float(torch.cat([wanted["boxes"], got["boxes"], torch.ones(1, 4)]).abs().max())
    alike = wanted["labels"][:, None] == got["labels"][None]
    alike &= (wanted["scores"][:, None] - got["scores"][None]).abs() <= TOLERANCE
    alike &= (wanted["boxes"][:, None] - got["boxes"][None]).abs().amax(-1) <= TOLERANCE * unit
    if "masks" in names and alike.any():
        rows, columns = alike.nonzero(as_tuple=True)
        apart = (wanted["masks"][rows].float() - got["masks"][columns].float()).abs()
        # Probabilities on a grid, or pixels of the photo.
        whole = not wanted["masks"].is_floating_point()
        alike[rows, columns] = apart.mean((1, 2)) <= LABELS_APART if whole else apart.amax((1, 2)) <= TOLERANCE
    alone = int((~alike.any(1)).sum() + (~alike.any(0)).sum()) if alike.numel() else sum(alike.shape)
    share = alone / max(1, sum(alike.shape))
    if share > OBJECTS_APART:
        raise ValueError(
            f"{share:.1%} of the objects that the exported file or the model finds in an input of {shape} are not "
            f"found by the other, where {OBJECTS_APART:.1%} are allowed"
        )
    return {"objects": share}, {"objects": OBJECTS_APART}


def _timed(function: Any, images: Tensor, repeats: int = 3) -> tuple[list[Tensor], float]:
    """What a function gives, and the shortest of its times in milliseconds, after one for warming up."""
    found = list(function(images))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function(images)
        times.append(time.perf_counter() - start)
    return found, 1000 * min(times)
