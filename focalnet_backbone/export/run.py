"""Exported models on photos, by onnxruntime: the same outputs as those of the frameworks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from focalnet_backbone.export.formats import METADATA, open_session
from focalnet_backbone.export.sources import INPUT
from focalnet_backbone.features.predictions import (
    FoundObject,
    Prediction,
    Predictor,
    UnfitImage,
    draw_objects,
    encode_mask,
    no_class,
    paint_labels,
)
from focalnet_backbone.system.command_line import first_line
from focalnet_backbone.system.inputs import parse_json

_TOLD = {
    "features": (),
    "classification": ("classes",),
    "segmentation": ("classes", "palette"),
    "detection": ("outputs", "classes", "category_ids"),
}
"""Lists in the metadata of a file for each task."""


class _OnPhotos:
    """An exported model that takes photos.

    Raises `ValueError` if the file is none, was written by another program, is for another task, or takes no photos.
    """

    def __init__(self, path: str | Path, *tasks: str) -> None:
        self.session = open_session(path)
        self.told = read_metadata(path, self.session)
        if self.told["task"] not in tasks:
            raise ValueError(f"{path} is a model for {self.told['task']}, not for {' or '.join(tasks)}")
        if self.session.get_inputs()[0].type != "tensor(uint8)":
            raise ValueError(f"{path} takes normalised tensors; export it without --tensor for photos")
        self.fixed = [side for side in self.session.get_inputs()[0].shape[1:3] if isinstance(side, int)]

    def run(self, path: str | Path, image: np.ndarray, output: str) -> np.ndarray:
        """An output for an image `(H, W, 3)`. Raises `UnfitImage` as `run_all` does."""
        return self.run_all(path, image, [output])[0][0]

    def run_all(self, path: str | Path, image: np.ndarray, outputs: list[str]) -> list[np.ndarray]:
        """Outputs for an image `(H, W, 3)` as the file gives them.

        Raises `UnfitImage` if the file takes another size alone, or fails at this one.
        """
        height, width = image.shape[:2]
        if self.fixed and [height, width] != self.fixed:
            only = "x".join(map(str, self.fixed))
            raise UnfitImage(f"{path} is {height}x{width}, but the model takes {only} alone")
        try:
            return self.session.run(outputs, {INPUT: np.ascontiguousarray(image)[None]})
        except Exception as error:  # onnxruntime's own errors have no common class.
            raise UnfitImage(f"{path}, which is {height}x{width}, makes the model fail: {first_line(error)}") from error


class OnnxPredictor(Predictor):
    """A segmenter or detector that `focalnet export` wrote.

    Args:
        path: the ONNX file.

    Raises:
        ValueError: it is none, was written by another program, is for another task, or takes no photos.
    """

    def __init__(self, path: str | Path) -> None:
        self.model = _OnPhotos(path, "segmentation", "detection")
        self.detects = self.model.told["task"] == "detection"
        self.labels_pixels = not self.detects

    def predict(self, path: Path, image: np.ndarray) -> Prediction:
        """What there is in an image, RGB, uint8 `(H, W, 3)`. Raises `UnfitImage` if the file takes another size."""
        if self.detects:
            return self._detect(path, image)
        count = len(self.model.told["classes"])
        kind = np.dtype(np.uint8 if count <= 255 else np.uint16)
        labels = self.model.run(path, image, "labels")
        return Prediction(labels=np.where(labels < count, labels, no_class(kind)).astype(kind))

    def draw(self, image: np.ndarray, prediction: Prediction, score: float) -> Image.Image:
        """The classes of pixels upon an image, with a legend; or objects with their masks, boxes, names and scores."""
        if self.detects:
            return draw_objects(image, [one for one in prediction.raw if one.score >= score])
        return paint_labels(image, prediction.labels, self.model.told["classes"], self.model.told["palette"])

    def _detect(self, path: Path, image: np.ndarray) -> Prediction:
        told = self.model.told
        found = dict(zip(told["outputs"], self.model.run_all(path, image, told["outputs"]), strict=True))
        detections, objects = [], []
        for number, (box, label) in enumerate(zip(found["boxes"].tolist(), found["labels"].tolist(), strict=True)):
            left, top, right, bottom = box
            score = float(found["scores"][number])
            mask = self._mask(found["masks"][number], box, image.shape[:2]) if "masks" in found else None
            objects.append(FoundObject(told["classes"][label], score, box, mask))
            detection = {
                "category_id": told["category_ids"][label],
                "bbox": [left, top, right - left, bottom - top],
                "score": score,
            }
            detections.append(detection if mask is None else {**detection, "segmentation": encode_mask(mask)})
        return Prediction(detections, raw=objects)

    def _mask(self, mask: np.ndarray, box: list[float], size: tuple[int, int]) -> np.ndarray:
        """Booleans (height, width) of a mask that the file gives for its box, or in the photo's pixels."""
        return mask.astype(bool) if self.model.told.get("masks") == "photo" else paste_mask(mask, box, size)


def paste_mask(crop: np.ndarray, box: list[float], size: tuple[int, int]) -> np.ndarray:
    """Where in an image of a size (height, width) a mask is, whose probabilities `(M, M)` lie on a grid over a box.

    Returns:
        Booleans `(height, width)`.
    """
    grids = []
    for start, end, length in ((box[0], box[2], size[1]), (box[1], box[3], size[0])):
        inside = torch.arange(max(0, int(start) - 1), min(length, int(end) + 2))
        grids.append((inside, (inside + 0.5 - start) / (end - start) * 2 - 1))
    (columns, x), (rows, y) = grids
    grid = torch.stack([x[None].expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=-1)[None]
    pasted = F.grid_sample(torch.from_numpy(crop)[None, None], grid, align_corners=False)[0, 0] >= 0.5
    whole = torch.zeros(size, dtype=torch.bool)
    whole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = pasted
    return whole.numpy()


class OnnxClassifier:
    """A classifier that `focalnet export` wrote.

    Args:
        path: the ONNX file.

    Raises:
        ValueError: it is none, was written by another program, is no classifier, or takes no photos.
    """

    def __init__(self, path: str | Path) -> None:
        self.model = _OnPhotos(path, "classification")

    def top_classes(self, path: str | Path, image: np.ndarray, topk: int = 5) -> list[tuple[str, float]]:
        """The most probable classes of an image, RGB, uint8 `(H, W, 3)`: names and probabilities, the best first."""
        logits = self.model.run(path, image, "logits")
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        best = np.argsort(-probabilities, kind="stable")[:topk]
        return [(self.model.told["classes"][index], float(probabilities[index])) for index in best]


def read_metadata(path: str | Path, session: Any) -> dict[str, Any]:
    """What `focalnet export` wrote into a file. Raises `ValueError` if it wrote none."""
    try:
        told = parse_json(session.get_modelmeta().custom_metadata_map[METADATA])
        whole = all(isinstance(told[name], list) for name in _TOLD[told["task"]])
    except (KeyError, ValueError, TypeError):
        whole = False
    if not whole:
        raise ValueError(f"{path} was not written by `focalnet export`: it does not say what its outputs mean")
    return told
