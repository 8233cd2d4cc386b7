"""Predictions as files: a photo that a model cannot take, and names of any kind upon pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from focalnet_backbone.features.predictions import (
    FoundObject,
    Prediction,
    PredictionPlan,
    Predictor,
    UnfitImage,
    draw_objects,
    paint_labels,
    predict_to_files,
)


class _OfOneHeight(Predictor):
    """Finds an object in photos of 20 rows, and can take no others."""

    detects, labels_pixels = True, False

    def predict(self, path, image):
        if len(image) != 20:
            raise UnfitImage(f"{path} is {len(image)} high")
        return Prediction([{"category_id": 1, "bbox": [0, 0, 1, 1], "score": 1.0}])

    def draw(self, image, prediction, score):
        return Image.fromarray(image)


def test_a_photo_that_the_model_cannot_take_is_left_out_and_the_others_results_are_kept(tmp_path):
    for number, height in enumerate([20, 30, 20]):
        Image.new("RGB", (10, height)).save(tmp_path / f"{number}.png")
    plan = PredictionPlan.make([tmp_path], tmp_path / "out")
    lines: list[str] = []
    summary = predict_to_files(_OfOneHeight(), plan, report=lines.append)
    assert str(summary) == "2 images done, 1 failed, 2 detections"
    assert lines == [f"skipped: {tmp_path / '1.png'} is 30 high"]
    assert [one["image_id"] for one in json.loads((tmp_path / "out" / "predictions.json").read_text())] == [1, 3]


@pytest.mark.parametrize("name", ["Größe, m²\nund Höhe", "a\tb\r\nc", ""])
def test_a_name_of_several_lines_is_drawn_on_one(name):
    image = np.zeros((40, 60, 3), np.uint8)
    flat = " ".join(name.split())
    assert paint_labels(image, image[..., 0], [name], [[9, 9, 9]]) == paint_labels(
        image, image[..., 0], [flat], [[9, 9, 9]]
    )
    drawn, expected = (draw_objects(image, [FoundObject(text, 0.5, [1, 1, 30, 30])]) for text in (name, flat))
    assert drawn == expected
