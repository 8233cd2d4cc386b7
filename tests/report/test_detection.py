"""Detections and labels against the truth, on cases worked out by hand and against COCO's own numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from focalnet_backbone.report.detection import compare_detections
from focalnet_backbone.report.segmentation import compare_labels

BOXES = {"ball": [0, 0, 20, 20], "star": [40, 40, 20, 20]}


@pytest.fixture
def truth(tmp_path) -> Path:
    """Two images with a ball (7) and a star (9) each."""
    annotations = [
        {"id": 2 * i + j + 1, "image_id": 10 + i, "category_id": number, "bbox": box, "area": 400, "iscrowd": 0}
        for i in range(2)
        for j, (number, box) in enumerate(zip((7, 9), BOXES.values(), strict=True))
    ]
    content = {
        "images": [{"id": 10 + i, "file_name": f"{i}.jpg", "width": 64, "height": 64} for i in range(2)],
        "categories": [{"id": 7, "name": "ball"}, {"id": 9, "name": "star"}],
        "annotations": annotations,
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(content))
    return path


def write(tmp_path: Path, *found: tuple) -> Path:
    path = tmp_path / "found.json"
    keys = ("image_id", "file_name", "category_id", "bbox", "score")
    path.write_text(json.dumps([dict(zip(keys, entry, strict=True)) for entry in found]))
    return path


def test_a_case_worked_out_by_hand(tmp_path, truth):
    found = write(
        tmp_path,
        (1, "photos/0.jpg", 7, BOXES["ball"], 0.9),  # right
        (1, "photos/0.jpg", 7, BOXES["star"], 0.8),  # a star taken for a ball
        (2, "photos/1.jpg", 9, [0, 44, 20, 20], 0.7),  # nothing there
        (2, "photos/1.jpg", 9, BOXES["star"], 0.2),  # right, but not confident
    )
    detection = compare_detections(truth, found)
    assert detection.kind == "bbox"
    assert detection.classes == ["ball", "star"]
    assert detection.confusion.tolist() == [[1, 0, 1], [1, 0, 1], [0, 1, 0]]
    # One of two balls is found before anything wrong: precision 1 up to a recall of 0.5, which are 51 of 101 recalls.
    assert detection.precision[0] == pytest.approx(100 * 51 / 101)
    np.testing.assert_allclose(detection.curves[0], [1.0] * 51 + [0.0] * 50)
    # Of the stars, one of two after one that is wrong: precision 1/2 up to a recall of 0.5.
    assert detection.precision[1] == pytest.approx(100 * 51 / 101 / 2)
    assert [(entry["file_name"], entry["score"]) for entry in detection.ranking] == [("0.jpg", 0.5), ("1.jpg", 0.0)]
    assert [(item["class"], item["actual"], item["score"]) for item in detection.mistakes] == [
        ("ball", "star", 0.8),
        ("star", "background", 0.7),
    ]


def test_a_perfect_detector_has_an_ap_of_100(tmp_path, truth):
    boxes = list(zip((7, 9), BOXES.values(), strict=True))
    entries = [(10 + i, f"{i}.jpg", number, box, 0.9) for i in range(2) for number, box in boxes]
    detection = compare_detections(truth, write(tmp_path, *entries))
    assert detection.overall == {"AP": pytest.approx(100), "AP50": pytest.approx(100)}
    assert detection.by_size["small"] == pytest.approx(100)
    assert np.isnan(detection.by_size["large"])
    assert detection.mistakes == []
    assert [entry["score"] for entry in detection.ranking] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("{}", "a list of results"),
        ('[{"image_id": 1}]', "lacks bbox, category_id or score"),
        ('[{"image_id": 99, "category_id": 7, "bbox": [0, 0, 1, 1], "score": 1}]', "no prediction of an image"),
        ("[]", "no prediction of an image"),
    ],
)
def test_predictions_that_are_none_are_refused(tmp_path, truth, content, message):
    path = tmp_path / "found.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        compare_detections(truth, path)


def test_labels_worked_out_by_hand(tmp_path):
    true = np.array([[0, 0, 1, 255], [0, 0, 1, 1]], np.uint8)
    found = np.array([[0, 0, 0, 1], [0, 0, 1, 1]], np.uint8)
    for folder, labels in (("true", true), ("found", found)):
        (tmp_path / folder).mkdir()
        Image.fromarray(labels).save(tmp_path / folder / "a.png")
        Image.fromarray(true % 255).save(tmp_path / folder / "b.png")
    result = compare_labels(tmp_path / "true", tmp_path / "found", ["road", "sky"])
    assert result.confusion.tolist() == [[9, 0], [1, 5]]
    assert result.iou == pytest.approx([90.0, 100 * 5 / 6])
    assert [entry["name"] for entry in result.ranking] == ["b", "a"]
    assert [entry["score"] for entry in result.ranking] == pytest.approx([1.0, (4 / 5 + 2 / 3) / 2])


def test_zero_of_the_truth_is_left_out_where_classes_are_numbered_from_one(tmp_path):
    for folder, labels in (("true", [[0, 1, 2]]), ("found", [[1, 0, 0]])):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.array(labels, np.uint8)).save(tmp_path / folder / "a.png")
    result = compare_labels(tmp_path / "true", tmp_path / "found", ["road", "sky"], zero_is_ignored=True)
    assert result.confusion.tolist() == [[1, 0], [1, 0]]


def test_labels_of_other_names_or_sizes_are_refused(tmp_path):
    for folder, name, size in (("true", "a", 4), ("found", "b", 4), ("other", "a", 5)):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((4, size), np.uint8)).save(tmp_path / folder / f"{name}.png")
    with pytest.raises(FileNotFoundError, match="no label image"):
        compare_labels(tmp_path / "true", tmp_path / "found", ["road"])
    with pytest.raises(ValueError, match=r"a.png is \(4, 5\), but"):
        compare_labels(tmp_path / "true", tmp_path / "other", ["road"])
