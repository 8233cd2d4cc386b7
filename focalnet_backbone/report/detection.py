"""How well boxes or masks of a detector agree with the truth: by class, by size, by confidence, image by image."""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from focalnet_backbone.system.inputs import read_json

MATCHED_FROM = 0.5
"""Overlap (IoU) from which a detection is taken for an object, in the confusion matrix and the ranking of images."""
CONFIDENT_FROM = 0.3
"""Score from which a detection counts there."""
_CURVE_AT = 0  # Of COCO's overlaps, the first is 0.5.


@dataclass
class Detection:
    """What the comparison gave.

    Attributes:
        kind: "bbox" or "segm".
        classes: names, in the order of the file.
        precision: AP of each class, of 100; NaN of one without objects.
        by_size: AP over all classes by "small", "medium", "large".
        overall: AP and AP50.
        curves: `(K, 101)`, precision at each recall from 0 to 1 at an overlap of 0.5.
        confusion: `(K + 1, K + 1)`, objects by their class and what was found there; the last is background.
        ranking: file name, F1 score, truth and detections of each image, the best first.
        mistakes: the most confident detections that match nothing of their class.
    """

    kind: str
    classes: list[str]
    precision: list[float]
    by_size: dict[str, float]
    overall: dict[str, float]
    curves: np.ndarray
    confusion: np.ndarray
    ranking: list[dict[str, Any]] = field(default_factory=list)
    mistakes: list[dict[str, Any]] = field(default_factory=list)


def compare_detections(annotations: str | Path, predictions: str | Path) -> Detection:
    """Compare predictions with the truth.

    Args:
        annotations: file in COCO's format.
        predictions: file in COCO's results format; images by `image_id`, or by `file_name` where it has that.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: one is not of its format, or no prediction is of an image of the truth.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth_file, found_file = _read(annotations, dict), _read(predictions, list)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = truth_file
        truth.createIndex()
        found = _fit_ids(truth, found_file, predictions)
        kind = "segm" if all("segmentation" in item for item in found) else "bbox"
        results = truth.loadRes(found)
        evaluation = COCOeval(truth, results, kind)
        evaluation.params.imgIds = sorted(truth.imgs)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"]  # (overlaps, recalls, classes, sizes, limits)
    classes = [truth.cats[number]["name"] for number in evaluation.params.catIds]
    detection = Detection(
        kind=kind,
        classes=classes,
        precision=[_mean(precision[:, :, k, 0, -1]) for k in range(len(classes))],
        by_size={size: _mean(precision[:, :, :, i, -1]) for i, size in enumerate(("small", "medium", "large"), 1)},
        overall={"AP": _mean(precision[:, :, :, 0, -1]), "AP50": _mean(precision[_CURVE_AT, :, :, 0, -1])},
        curves=precision[_CURVE_AT, :, :, 0, -1].T,
        confusion=np.zeros((len(classes) + 1,) * 2, dtype=int),
    )
    _match_images(detection, truth, results, evaluation.params.catIds)
    return detection


def _read(path: str | Path, kind: type) -> Any:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    content = read_json(path, most=None)
    keys = () if kind is list else ("images", "annotations", "categories")
    if not isinstance(content, kind) or not all(isinstance(content.get(key), list) for key in keys):
        expected = "a list of results" if kind is list else "images, annotations and categories"
        raise ValueError(f"{path} is not in COCO's format: it has no {expected}")
    return content


def _fit_ids(truth: Any, found: list[dict], path: str | Path) -> list[dict]:
    """The predictions with the truth's image ids, which a prediction of photos cannot know."""
    by_name = {Path(image["file_name"]).name: number for number, image in truth.imgs.items()}
    fitted = []
    for item in found:
        if not isinstance(item, dict) or not {"bbox", "category_id", "score"} <= item.keys():
            raise ValueError(f"{path} is not in COCO's results format: an entry lacks bbox, category_id or score")
        number = by_name.get(Path(item["file_name"]).name) if "file_name" in item else item.get("image_id")
        if number in truth.imgs and item["category_id"] in truth.cats:
            fitted.append({**item, "image_id": number})
    if not fitted:
        raise ValueError(f"{path} has no prediction of an image and a class of the annotations")
    return fitted


def _mean(values: np.ndarray) -> float:
    valid = values[values > -1]
    return float(100 * valid.mean()) if valid.size else float("nan")


def _match_images(detection: Detection, truth: Any, results: Any, category_ids: list[int]) -> None:
    import pycocotools.mask as mask_tools

    place = {number: index for index, number in enumerate(category_ids)}
    background = len(category_ids)
    for number, image in truth.imgs.items():
        objects = [a for a in truth.imgToAnns[number] if not a.get("iscrowd")]
        found = [a for a in results.imgToAnns[number] if a["score"] >= CONFIDENT_FROM]
        found.sort(key=lambda item: -item["score"])
        if detection.kind == "segm":
            shapes = [[results.annToRLE(a) for a in found], [truth.annToRLE(a) for a in objects]]
        else:
            shapes = [[a["bbox"] for a in found], [a["bbox"] for a in objects]]
        overlaps = (
            mask_tools.iou(*shapes, [0] * len(objects)) if objects and found else np.zeros((len(found), len(objects)))
        )
        free, hits = set(range(len(objects))), 0
        for i, item in enumerate(found):
            best = max(free, key=lambda j: overlaps[i, j], default=None)
            met = best is not None and overlaps[i, best] >= MATCHED_FROM
            actual = place[objects[best]["category_id"]] if met else background
            detection.confusion[actual, place[item["category_id"]]] += 1
            right = met and objects[best]["category_id"] == item["category_id"]
            if met:
                free.discard(best)
            hits += right
            item["right"] = right
            if not right:
                what = detection.classes[actual] if met else "background"
                detection.mistakes.append(
                    {"file_name": image["file_name"], "actual": what, **_shown(detection, place, item)}
                )
        for j in free:
            detection.confusion[place[objects[j]["category_id"]], background] += 1
        total = len(found) + len(objects)
        detection.ranking.append(
            {
                "file_name": image["file_name"],
                "score": 2 * hits / total if total else 1.0,
                "truth": [_shown(detection, place, a) for a in objects],
                "found": [_shown(detection, place, a) for a in found],
            }
        )
    detection.ranking.sort(key=lambda entry: -entry["score"])
    detection.mistakes.sort(key=lambda entry: -entry["score"])


def _shown(detection: Detection, place: dict[int, int], item: dict) -> dict[str, Any]:
    return {
        "class": detection.classes[place[item["category_id"]]],
        "box": [float(value) for value in item["bbox"]],
        "score": float(item.get("score", 1.0)),
        "right": bool(item.get("right", True)),
    }


def group_by_image(mistakes: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Mistakes by the image that they are in, in their order."""
    grouped: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for mistake in mistakes:
        grouped[mistake["file_name"]].append(mistake)
    return grouped
