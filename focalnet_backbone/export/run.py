"""Exported models on photos, by onnxruntime: the same outputs as those of the frameworks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from focalnet_backbone.export.formats import METADATA, open_session
from focalnet_backbone.export.sources import INPUT
from focalnet_backbone.features.predictions import Prediction, Predictor, paint_labels


class _OnPhotos:
    """An exported model that takes photos.

    Raises `ValueError` if the file is none, was written by another program, is for another task, or takes no photos.
    """

    def __init__(self, path: str | Path, task: str) -> None:
        self.session = open_session(path)
        self.told = read_metadata(path, self.session)
        if self.told["task"] != task:
            raise ValueError(f"{path} is a model for {self.told['task']}, not for {task}")
        if self.session.get_inputs()[0].type != "tensor(uint8)":
            raise ValueError(f"{path} takes normalised tensors; export it without --tensor for photos")
        self.fixed = [side for side in self.session.get_inputs()[0].shape[1:3] if isinstance(side, int)]

    def run(self, path: str | Path, image: np.ndarray, output: str) -> np.ndarray:
        """An output for an image `(H, W, 3)`. Raises `ValueError` if the file takes another size alone."""
        if self.fixed and [*image.shape[:2]] != self.fixed:
            height, width = image.shape[:2]
            only = "x".join(map(str, self.fixed))
            raise ValueError(f"{path} is {height}x{width}, but the model takes {only} alone")
        return self.session.run([output], {INPUT: np.ascontiguousarray(image)[None]})[0][0]


class OnnxPredictor(Predictor):
    """A segmenter that `focalnet export` wrote.

    Args:
        path: the ONNX file.

    Raises:
        ValueError: it is none, was written by another program, is no segmenter, or takes no photos.
    """

    detects = False
    labels_pixels = True

    def __init__(self, path: str | Path) -> None:
        self.model = _OnPhotos(path, "segmentation")

    def predict(self, path: Path, image: np.ndarray) -> Prediction:
        """What there is in an image, RGB, uint8 `(H, W, 3)`. Raises `ValueError` if the file takes another size."""
        kind = np.uint8 if len(self.model.told["classes"]) <= 255 else np.uint16
        return Prediction(labels=self.model.run(path, image, "labels").astype(kind))

    def draw(self, image: np.ndarray, prediction: Prediction, score: float) -> Image.Image:
        """The classes of pixels upon an image, with a legend."""
        return paint_labels(image, prediction.labels, self.model.told["classes"], self.model.told["palette"])


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
        told = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
        told["task"]
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path} was not written by `focalnet export`: it does not say what its outputs mean"
        ) from error
    return told
