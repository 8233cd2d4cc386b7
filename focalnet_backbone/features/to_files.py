"""Feature pyramids of whole folders into files: what `tools/extract_features.py` does."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from focalnet_backbone.features.extractor import FeatureExtractor
from focalnet_backbone.features.images import find_images
from focalnet_backbone.features.pyramid import FeaturePyramid
from focalnet_backbone.system.command_line import is_out_of_memory, one_line
from focalnet_backbone.system.files import remove_unfinished
from focalnet_backbone.system.inputs import parse_json
from focalnet_backbone.system.interruption import Stopped, stop_signals
from focalnet_backbone.system.outputs import check_apart, check_output, is_own, result_file


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


def plan_outputs(
    inputs: Sequence[str | Path],
    out_dir: str | Path,
    suffix: str = ".safetensors",
    on_error: Callable[[Path, OSError], None] | None = None,
) -> dict[Path, Path]:
    """The output file of each image: files, folders (searched recursively) and globs, mirrored below `out_dir`.

    An image of a folder keeps its path relative to that folder; other images lie at the top. `suffix` is added to its
    name. Pictures in folders that this package drew are left out. What cannot be searched goes to `on_error`, as of
    `find_images`. Raises `FileNotFoundError` for an input that is not there and `ValueError` if two images would share
    an output.
    """
    planned: dict[Path, Path] = {}
    for entry in map(str, inputs):
        found = _find(entry, on_error)
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


def _find(entry: str, on_error: Callable[[Path, OSError], None] | None) -> list[tuple[Path, Path]]:
    """The images of an input, each with the path that it keeps."""
    if os.path.isdir(entry):
        found = [(image, image.relative_to(entry)) for image in find_images(entry, on_error)]
    elif os.path.lexists(entry):
        return [(Path(entry), Path(Path(entry).name))]
    else:
        # With **, what lies in a folder that matches does so too.
        matches = [Path(match) for match in sorted(glob.glob(entry, recursive=True))]
        folders = [] if "**" in entry else [match for match in matches if match.is_dir()]
        found = [(match, Path(match.name)) for match in matches if not match.is_dir()]
        for folder in folders:
            found += [(image, image.relative_to(folder)) for image in find_images(folder, on_error)]
    return [(image, relative) for image, relative in found if not is_own(image)]


def claim_outputs(
    outputs: dict[Path, list[Path]],
    inputs: Iterable[str | Path] = (),
    *,
    force: bool = False,
    on_error: Callable[[Path, OSError], None],
) -> list[Path]:
    """Check what each image would be written to, as `claim` does, and return the images for which it may be.

    The others, whose name would be too long or in whose place there is a file of a user's, go to `on_error`.

    Args:
        outputs: the files to write, by image.
        inputs: further files that must not be written over.
        force: let a user's files be replaced.
        on_error: called with an image and the reason.

    Raises:
        ValueError: two outputs are the same file, or one is an image.
        OSError: nothing can be written to a folder.
    """
    check_apart([(path, image) for image, paths in outputs.items() for path in paths], [*outputs, *inputs])
    good = []
    for image, paths in outputs.items():
        try:
            for path in paths:
                check_output(path, force=force)
            good.append(image)
        except (FileExistsError, IsADirectoryError) as error:
            on_error(image, error)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            on_error(image, OSError(error.errno, error.strerror, str(image)))
    for folder in {path.parent for image in good for path in outputs[image]}:
        remove_unfinished(folder)
    return good


def extract_to_files(
    extractor: FeatureExtractor,
    outputs: dict[Path, Path],
    *,
    settings: dict[str, Any],
    batch_size: int = 8,
    num_workers: int = 0,
    resume: bool = False,
    plot: bool = False,
    force: bool = False,
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
        resume: leave alone outputs that were written before, from the same image, which has not changed, by the same
            weights with the same settings.
        plot: whether to write pictures.
        force: replace files that this package did not write.
        report: takes one line about each image that could not be read, or whose pyramid not be written.

    Raises:
        Stopped: SIGINT or SIGTERM came; all that is written is whole.
        ValueError: two outputs are the same file, or one is an image. Nothing is written.
        OSError: a file cannot be written.
    """
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    summary = ExtractionSummary()
    stamps = _make_stamps(extractor, settings)
    share = dict(list(outputs.items())[rank::ranks])
    todo = {}
    for image, output in share.items():
        if resume and _is_done(output, stamps(image), plot):
            summary.skipped += 1
        else:
            todo[image] = [output, output.with_suffix(".png")] if plot else [output]

    with tqdm(total=len(todo), unit="image", desc="extracting", disable=rank != 0) as bar, stop_signals() as stop:

        def note_failure(image: Path, error: Exception) -> None:
            if stop:
                raise Stopped(stop[0])
            summary.failed.append((str(image), one_line(error)))
            report(f"skipped: {one_line(error)}")
            bar.update()

        good = claim_outputs(todo, outputs, force=force, on_error=note_failure)
        noted = {image: stamps(image) for image in good}
        stream = extractor.stream(good, batch_size=batch_size, num_workers=num_workers, on_error=note_failure)
        for pyramid in stream:
            image = Path(pyramid.metadata["source"])
            pyramid.metadata |= noted.pop(image)
            try:
                if plot:
                    save_plot(pyramid, outputs[image].with_suffix(".png"))
                pyramid.save(outputs[image])
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                note_failure(image, MemoryError(f"the memory is not enough to write the pyramid of {image}"))
                continue
            summary.written += 1
            bar.update()
            if stop:
                raise Stopped(stop[0])
    return _sum_over_ranks(summary) if ranks > 1 else summary


def save_plot(pyramid: FeaturePyramid, path: Path) -> None:
    """Write a pyramid's picture as a PNG, whole or not at all."""
    with result_file(path) as unfinished:
        pyramid.plot().savefig(unfinished, dpi=100)


def model_digest(extractor: FeatureExtractor) -> str:
    """What two extractors have in common that compute the same: a digest of the architecture and the weights."""
    digest = hashlib.sha256(extractor.model.config.to_json_string().encode())
    for name, tensor in extractor.model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _make_stamps(extractor: FeatureExtractor, settings: dict[str, Any]) -> Callable[[Path], dict[str, str]]:
    """What says from what a pyramid was made: the settings, the model's weights, and the image as it is on the disk."""
    common = {"settings": json.dumps(settings, sort_keys=True, default=str), "model": model_digest(extractor)}

    def stamp(image: Path) -> dict[str, str]:
        try:
            status = image.stat()
        except OSError:  # Who reads it will say so.
            return {"source": str(image), **common}
        return {"source": str(image), "image": f"{status.st_size} bytes of {status.st_mtime_ns}", **common}

    return stamp


def _is_done(output: Path, stamp: dict[str, str], plot: bool) -> bool:
    if not is_own(output) or (plot and not is_own(output.with_suffix(".png"))):
        return False
    try:
        with safe_open(output, framework="pt") as file:
            return parse_json((file.metadata() or {})["metadata"]) == stamp
    except (SafetensorError, KeyError, ValueError):
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
