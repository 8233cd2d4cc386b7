"""How well label images of a segmenter agree with the truth: by class, and image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from focalnet_backbone.features.images import open_image


@dataclass
class Segmentation:
    """What the comparison gave.

    Attributes:
        classes: names.
        confusion: `(K, K)`, pixels by their class and what was predicted there.
        ranking: file, mean IoU, truth and prediction of each image, the best first.
    """

    classes: list[str]
    confusion: np.ndarray
    ranking: list[dict[str, Any]] = field(default_factory=list)

    @property
    def iou(self) -> list[float]:
        """Intersection over union of each class in percent; NaN of one that is neither there nor predicted."""
        return [100 * value for value in _iou(self.confusion)]


def compare_labels(
    truth: str | Path,
    predictions: str | Path,
    classes: Sequence[str],
    *,
    ignore: int = 255,
    zero_is_ignored: bool = False,
) -> Segmentation:
    """Compare folders of label images, PNGs of the same stem.

    Args:
        truth: folder of the true labels.
        predictions: folder of the predicted ones, class numbers from 0.
        classes: names of the classes.
        ignore: value of the truth that is not counted.
        zero_is_ignored: whether 0 is not counted either, and classes are numbered from 1 (as in ADE20K).

    Raises:
        FileNotFoundError: no prediction has a truth of the same name.
        ValueError: two label images are of different sizes.
    """
    found = {path.stem: path for path in sorted(Path(predictions).rglob("*.png"))}
    true = {path.stem: path for path in sorted(Path(truth).rglob("*.png"))}
    names = sorted(found.keys() & true.keys())
    if not names:
        raise FileNotFoundError(f"no label image of {predictions} has one of the same name in {truth}")
    result = Segmentation(list(classes), np.zeros((len(classes),) * 2, dtype=np.int64))
    for name in names:
        actual, predicted = (np.asarray(open_image(files[name])).astype(np.int64) for files in (true, found))
        if actual.shape != predicted.shape:
            raise ValueError(f"{found[name]} is {predicted.shape}, but {true[name]} {actual.shape}")
        if zero_is_ignored:
            actual = np.where(actual == 0, ignore, actual - 1)
        counted = (actual != ignore) & (actual < len(classes)) & (predicted < len(classes))
        numbers = actual[counted] * len(classes) + predicted[counted]
        confusion = np.bincount(numbers, minlength=len(classes) ** 2).reshape(result.confusion.shape)
        result.confusion += confusion
        mean = float(np.nanmean(_iou(confusion))) if confusion.any() else 0.0
        result.ranking.append({"name": name, "score": mean, "truth": true[name], "found": found[name]})
    result.ranking.sort(key=lambda entry: -entry["score"])
    return result


def _iou(confusion: np.ndarray) -> np.ndarray:
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    with np.errstate(invalid="ignore"):
        return np.where(union > 0, np.diag(confusion) / np.maximum(union, 1), np.nan)
