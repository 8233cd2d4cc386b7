"""Feature pyramids of whole folders into files: what `tools/extract_features.py` does."""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from focalnet_backbone.features.extractor import FeatureExtractor
from focalnet_backbone.features.images import find_images
from focalnet_backbone.features.pyramid import FeaturePyramid
from focalnet_backbone.system.files import whole_file
from focalnet_backbone.system.interruption import stop_signals


@dataclass
class ExtractionSummary:
    """What became of the images.

    Attributes:
        written: number of pyramids written.
        skipped: number of images whose pyramid was there.
        failed: image path and reason of each that could not be read.
    """

    written: int = 0
    skipped: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.written} written, {self.skipped} skipped (done before), {len(self.failed)} failed"


def plan_outputs(inputs: Sequence[str | Path], out_dir: str | Path, suffix: str = ".safetensors") -> dict[Path, Path]:
    """The output file of each image: files, folders (searched recursively) and globs, mirrored below `out_dir`.

    An image of a folder keeps its path relative to that folder; other images lie at the top. `suffix` is added to its
    name. Pictures that lie there from an earlier run of the tools are left out. Raises `FileNotFoundError` for an input
    that is not there and `ValueError` if two images would share an output.
    """
    planned: dict[Path, Path] = {}
    for entry in map(str, inputs):
        if Path(entry).is_dir():
            found = [(image, image.relative_to(entry)) for image in find_images(entry) if not _is_plot(image)]
        elif Path(entry).exists():
            found = [(Path(entry), Path(Path(entry).name))]
        else:
            found = [(Path(match), Path(Path(match).name)) for match in sorted(glob.glob(entry, recursive=True))]
            found = [(image, relative) for image, relative in found if image.is_file() and not _is_plot(image)]
        if not found:
            raise FileNotFoundError(f"no image at {entry}")
        for image, relative in found:
            # The image's suffix stays in the name, since a.jpg and a.png may lie side by side.
            planned[image] = Path(out_dir) / relative.with_name(relative.name + suffix)
    sources: dict[Path, Path] = {}
    for image, output in planned.items():
        if output in sources:
            raise ValueError(f"{sources[output]} and {image} would both be written to {output}; name their folder")
        sources[output] = image
    return planned


def extract_to_files(
    extractor: FeatureExtractor,
    outputs: dict[Path, Path],
    *,
    settings: dict[str, Any],
    batch_size: int = 8,
    num_workers: int = 0,
    resume: bool = False,
    plot: bool = False,
    report: Callable[[str], None] = tqdm.write,
) -> ExtractionSummary:
    """Write the pyramid of each image as safetensors, and with `plot` a PNG beside it, with a progress bar.

    Under `torch.distributed` each rank takes its share of the images, and all return the summary of the whole.

    Args:
        extractor: what computes the pyramids.
        outputs: output file by image file, as `plan_outputs` gives them.
        settings: what the features depend on (variant, weights, ...); written into each file.
        batch_size: images taken at once.
        num_workers: processes that read images ahead.
        resume: leave alone outputs that were written before, from the same image with the same settings.
        plot: whether to write pictures.
        report: takes one line about each image that could not be read.

    Raises:
        KeyboardInterrupt: SIGINT or SIGTERM came; all that is written is whole.
        OSError: a file cannot be written.
    """
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    stamp = json.dumps(settings, sort_keys=True, default=str)
    summary = ExtractionSummary()
    todo = []
    for image, output in list(outputs.items())[rank::ranks]:
        if resume and _is_done(image, output, stamp, plot):
            summary.skipped += 1
        else:
            todo.append(image)

    with tqdm(total=len(todo), unit="image", desc="extracting", disable=rank != 0) as bar, stop_signals() as stop:

        def note_failure(image: Path, error: Exception) -> None:
            summary.failed.append((str(image), str(error)))
            report(f"skipped: {error}")
            bar.update()

        stream = extractor.stream(todo, batch_size=batch_size, num_workers=num_workers, on_error=note_failure)
        for pyramid in stream:
            pyramid.metadata["settings"] = stamp
            output = outputs[Path(pyramid.metadata["source"])]
            if plot:
                save_plot(pyramid, output.with_suffix(".png"))
            pyramid.save(output)
            summary.written += 1
            bar.update()
            if stop:
                raise KeyboardInterrupt
    return _sum_over_ranks(summary) if ranks > 1 else summary


def save_plot(pyramid: FeaturePyramid, path: Path) -> None:
    """Write a pyramid's picture as a PNG, whole or not at all."""
    with whole_file(path) as unfinished:
        pyramid.plot().savefig(unfinished, dpi=100)


def _is_plot(image: Path) -> bool:
    """Whether it is a picture that `save_plot` or `tools/visualize.py` wrote."""
    if image.name.endswith((".gates.png", ".modulator.png")):
        return True
    return image.suffix == ".png" and image.with_suffix(".safetensors").is_file()


def _is_done(image: Path, output: Path, stamp: str, plot: bool) -> bool:
    if not output.is_file() or (plot and not output.with_suffix(".png").is_file()):
        return False
    try:
        with safe_open(output, framework="pt") as file:
            noted = json.loads((file.metadata() or {}).get("metadata", "{}"))
            return noted == {"source": str(image), "settings": stamp}
    except SafetensorError:
        return False


def _sum_over_ranks(summary: ExtractionSummary) -> ExtractionSummary:
    gathered: list[ExtractionSummary] = [summary] * dist.get_world_size()
    dist.all_gather_object(gathered, summary)
    return _total(gathered)


def _total(summaries: Iterable[ExtractionSummary]) -> ExtractionSummary:
    total = ExtractionSummary()
    for part in summaries:
        total.written += part.written
        total.skipped += part.skipped
        total.failed += part.failed
    return total
