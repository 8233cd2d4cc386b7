"""What a detector or segmenter finds in photos, into files: the same ones for the models of every host."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from focalnet_backbone.features.images import load_image
from focalnet_backbone.features.to_files import claim_outputs, plan_outputs
from focalnet_backbone.system.command_line import one_line
from focalnet_backbone.system.outputs import claim, result_file
from focalnet_backbone.system.switches import check_switch

RESULTS = "predictions.json"
"""Name of the file with the detections of all images."""

DRAWN_SCORE = 0.5
"""Lowest score of the detections that are drawn, unless another is asked for."""

_OPACITY = 0.6
"""Of the colours of classes upon an image."""


class UnfitImage(ValueError):
    """A model cannot take this image, though it may take others."""


@dataclass
class Prediction:
    """What a model finds in one image.

    Attributes:
        detections: objects in COCO's results format, without `image_id`; None of a model that detects none.
        labels: the class index of each pixel `(H, W)`; None of a model that gives none.
        raw: what `Predictor.draw` needs of the host's own result.
    """

    detections: list[dict[str, Any]] | None = None
    labels: np.ndarray | None = None
    raw: Any = None


class Predictor(ABC):
    """A model with its weights, for one image at a time.

    Attributes:
        detects: whether it gives detections.
        labels_pixels: whether it gives a class for each pixel.
    """

    detects: bool
    labels_pixels: bool

    @abstractmethod
    def predict(self, path: Path, image: np.ndarray) -> Prediction:
        """What there is in an image file, which is read already: RGB, uint8 `(H, W, 3)`.

        Raises `UnfitImage` if the model cannot take it.
        """

    @abstractmethod
    def draw(self, image: np.ndarray, prediction: Prediction, score: float) -> Image.Image:
        """The image with what was found in it; of detections, those with at least a score."""


@dataclass
class PredictionSummary:
    """What became of the images.

    Attributes:
        images: number of images done.
        detections: number of detections in the results file; None if there is none.
        written: the files.
        failed: reason for each image that could not be read or whose results could not be written, and for each folder
            that could not be searched.
    """

    images: int = 0
    detections: int | None = None
    written: list[Path] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        found = "" if self.detections is None else f", {self.detections} detections"
        return f"{self.images} images done, {len(self.failed)} failed{found}"


@dataclass(frozen=True)
class PredictionPlan:
    """Images and the files that are made of them, without their ending: `OUT/FOLDERS/NAME`."""

    stems: dict[Path, Path]
    out_dir: Path
    overlay: bool = True
    unsearched: tuple[str, ...] = ()

    @classmethod
    def make(cls, inputs: Sequence[str | Path], out_dir: str | Path, *, overlay: bool = True) -> PredictionPlan:
        """Find the images of files, folders (searched recursively) and globs, as `plan_outputs` does.

        Raises:
            FileNotFoundError: an input is not there.
            ValueError: two images would share an output.
        """
        unsearched: list[str] = []
        planned = plan_outputs(inputs, out_dir, "", lambda folder, error: unsearched.append(one_line(error)))
        stems = {image: output.with_suffix("") for image, output in planned.items()}
        return cls(stems, Path(out_dir), check_switch("overlay", overlay), tuple(unsearched))

    def labels_of(self, image: Path) -> Path:
        """The file for the class of each pixel."""
        return self.stems[image].with_name(f"{self.stems[image].name}.png")

    def overlay_of(self, image: Path) -> Path:
        """The file for the picture of what was found."""
        return self.stems[image].with_name(f"{self.stems[image].name}_overlay.png")

    def claim(self, predictor: Predictor, on_error: Callable[[Path, OSError], None], *, force: bool) -> list[Path]:
        """The images whose outputs may be written (see `claim_outputs`)."""
        outputs = {
            image: [self.labels_of(image)] * predictor.labels_pixels + [self.overlay_of(image)] * self.overlay
            for image in self.stems
        }
        if predictor.detects:
            claim([(self.out_dir / RESULTS, "the detections")], self.stems, force=force)
        return claim_outputs(outputs, force=force, on_error=on_error)


def predict_to_files(
    predictor: Predictor,
    plan: PredictionPlan,
    *,
    score_threshold: float | None = None,
    force: bool = False,
    report: Callable[[str], None] = tqdm.write,
) -> PredictionSummary:
    """Write what a model finds in images, with a progress bar.

    For a detector, `predictions.json` in the output folder is in COCO's results format: `image_id` counts the images
    from 1, `file_name` is the image's path, boxes are `[left, top, width, height]` in pixels, masks run-length encoded.
    For a segmenter, `NAME.png` holds the class index of each pixel. `NAME_overlay.png` shows either upon the image.

    Args:
        predictor: the model.
        plan: images and outputs.
        score_threshold: lowest score, from 0 to 1, of a detection that is written or drawn; by default all are written
            and those of at least 0.5 drawn.
        force: let files be replaced that this package did not write.
        report: takes one line about each image that is left out.

    Raises:
        ValueError: the threshold is out of range, two outputs are the same file, or one is an input.
        FileExistsError: `predictions.json` is there, not of this package, and `force` is False.
        OSError: a file cannot be written.
    """
    if score_threshold is not None and not 0 <= score_threshold <= 1:
        raise ValueError(f"score_threshold must be from 0 to 1, got {score_threshold}")
    check_switch("force", force)
    drawn_score = DRAWN_SCORE if score_threshold is None else score_threshold
    summary = PredictionSummary(failed=list(plan.unsearched))

    def note_failure(path: Path, error: Exception) -> None:
        summary.failed.append(one_line(error))
        report(f"skipped: {summary.failed[-1]}")

    good = set(plan.claim(predictor, note_failure, force=force))
    results: list[dict[str, Any]] = []
    for number, path in enumerate(tqdm(plan.stems, desc="predicting", unit="image"), start=1):
        if path not in good:
            continue
        try:
            image = load_image(path).permute(1, 2, 0).numpy()
        except (OSError, ValueError) as error:
            note_failure(path, error)
            continue
        try:
            prediction = predictor.predict(path, image)
        except UnfitImage as error:
            note_failure(path, error)
            continue
        for detection in prediction.detections or ():
            if detection["score"] >= (score_threshold or 0):
                results.append({"image_id": number, **detection, "file_name": str(path)})
        if prediction.labels is not None:
            summary.written.append(_save(Image.fromarray(prediction.labels), plan.labels_of(path)))
        if plan.overlay:
            summary.written.append(_save(predictor.draw(image, prediction, drawn_score), plan.overlay_of(path)))
        summary.images += 1
    if predictor.detects and summary.images:
        summary.detections = len(results)
        summary.written.append(plan.out_dir / RESULTS)
        with result_file(summary.written[-1]) as unfinished:
            unfinished.write_text(json.dumps(results), encoding="utf-8")
    return summary


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """A mask `(H, W)` in COCO's run-length encoding, as JSON holds it."""
    from pycocotools.mask import encode

    found = encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in found["size"]], "counts": found["counts"].decode("ascii")}


@dataclass
class FoundObject:
    """An object in an image, to be drawn.

    Attributes:
        name: of its class.
        score: between 0 and 1.
        box: left, top, right, bottom in pixels.
        mask: booleans `(H, W)`; None of a model without masks.
    """

    name: str
    score: float
    box: Sequence[float]
    mask: np.ndarray | None = None


def draw_objects(image: np.ndarray, objects: Sequence[FoundObject]) -> Image.Image:
    """An image `(H, W, 3)` with masks, boxes, names and scores upon it, a colour for each object."""
    colours = np.random.default_rng(0).integers(64, 256, (len(objects), 3))
    painted = image.astype(np.float32)
    for one, colour in zip(objects, colours, strict=True):
        if one.mask is not None:
            painted[one.mask] = _OPACITY * colour + (1 - _OPACITY) * painted[one.mask]
    picture = Image.fromarray(painted.astype(np.uint8))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    for one, colour in zip(objects, colours.tolist(), strict=True):
        draw.rectangle([round(side) for side in one.box], outline=tuple(colour), width=2)
        text, corner = f"{_on_one_line(one.name)} {one.score:.0%}", (round(one.box[0]) + 2, round(one.box[1]))
        draw.rectangle(draw.textbbox(corner, text, font=font), fill=tuple(colour))
        draw.text(corner, text, fill="black", font=font)
    return picture


def no_class(kind: np.dtype) -> int:
    """The label of a pixel that is of no class, in labels of that type: the largest number, such as 255."""
    return np.iinfo(kind).max


def paint_labels(
    image: np.ndarray, labels: np.ndarray, classes: Sequence[str], palette: Sequence[Sequence[int]] | None = None
) -> Image.Image:
    """An image `(H, W, 3)` painted with the class of each pixel `(H, W)`, a legend of the classes in it to its right.

    Args:
        image: RGB, uint8.
        labels: class indices; where it is `no_class(labels.dtype)`, the image stays as it is.
        classes: their names.
        palette: their RGB colours; by default some that differ.
    """
    known = labels != no_class(labels.dtype)
    if palette is None:
        count = max(len(classes), int(labels[known].max(initial=0)) + 1)
        palette = np.random.default_rng(0).integers(0, 256, (count, 3))
    colours = np.asarray(palette, np.uint8)
    painted = image.copy()
    painted[known] = (_OPACITY * colours[labels[known]] + (1 - _OPACITY) * image[known]).astype(np.uint8)
    present = np.flatnonzero(np.bincount(labels[known], minlength=len(colours)))
    names = {index: _on_one_line(classes[index]) if index < len(classes) else str(index) for index in present}
    legend = [(names[index], tuple(colours[index].tolist())) for index in present]
    return _add_legend(Image.fromarray(painted), legend)


def _add_legend(image: Image.Image, entries: list[tuple[str, tuple[int, int, int]]]) -> Image.Image:
    """The image with a legend of class names and colours to its right."""
    size = 14
    font = ImageFont.load_default(size)
    width = 3 * size + max((int(font.getlength(name)) for name, _ in entries), default=0)
    height = size + len(entries) * 2 * size
    canvas = Image.new("RGB", (image.width + width, max(image.height, height)), "white")
    canvas.paste(image, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for row, (name, colour) in enumerate(entries):
        left, top = image.width + size // 2, size // 2 + row * 2 * size
        draw.rectangle((left, top, left + size, top + size), fill=colour, outline="black")
        draw.text((left + 3 * size // 2, top + size // 2), name, fill="black", font=font, anchor="lm")
    return canvas


def _on_one_line(name: str) -> str:
    return " ".join(name.split())


def _save(picture: Image.Image, path: Path) -> Path:
    with result_file(path) as unfinished:
        picture.save(unfinished)
    return path
