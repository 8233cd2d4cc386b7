"""Labels of labelling programs, converted: the same two rectangles, written as each program writes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from focalnet_backbone.command import import_labels
from focalnet_backbone.own_data import find_suffixes

BOXES = {"car": (4, 6, 20, 18), "sky": (24, 2, 36, 10)}
"""x1, y1, x2, y2 in a photo of 40 x 30 pixels."""


def corners(box: tuple[int, int, int, int]) -> list[list[int]]:
    x1, y1, x2, y2 = box
    return [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]


def write_yolo(root: Path) -> list[str]:
    lines = [f"{i} " + " ".join(f"{x / 40} {y / 30}" for x, y in corners(box)) for i, box in enumerate(BOXES.values())]
    (root / "1.txt").write_text("\n".join(lines))
    (root.parent / "data.yaml").write_text("names: [car, sky]\n")
    return ["--data", str(root.parent / "data.yaml")]


def write_labelme(root: Path) -> list[str]:
    shapes = [{"label": n, "points": corners(b), "shape_type": "polygon", "group_id": None} for n, b in BOXES.items()]
    content = {"version": "5.0", "imagePath": "1.jpg", "imageData": None, "imageHeight": 30, "imageWidth": 40}
    (root / "1.json").write_text(json.dumps({**content, "shapes": shapes, "flags": {}}))
    return []


def write_voc(root: Path) -> list[str]:
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
        f"<xmax>{x2 + 1}</xmax><ymax>{y2 + 1}</ymax></bndbox></object>"
        for name, (x1, y1, x2, y2) in BOXES.items()
    )
    (root / "1.xml").write_text(f"<annotation><filename>1.jpg</filename>{objects}</annotation>")
    return []


@pytest.fixture
def root(tmp_path) -> Path:
    for folder in ("photos", "labels"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "photos" / "1.jpg")
    Image.new("RGB", (40, 30)).save(tmp_path / "photos" / "empty.jpg")
    return tmp_path


def run(root: Path, kind: str, out: Path, *more: str) -> int:
    places = ["--images", str(root / "photos"), "--labels", str(root / "labels"), "--out", str(out)]
    return import_labels.main(["--from", kind, *places, *more])


@pytest.mark.parametrize(("kind", "write"), [("yolo", write_yolo), ("labelme", write_labelme), ("voc", write_voc)])
def test_objects_become_a_coco_file_that_pycocotools_reads(root, kind, write, capsys):
    more = write(root / "labels")
    assert run(root, kind, root / "train.json", *more) == 0
    assert capsys.readouterr().out.startswith("wrote 2 objects of 2 classes in ")
    coco = COCO(str(root / "train.json"))
    names = {category["id"]: category["name"] for category in coco.dataset["categories"]}
    found = {names[a["category_id"]]: a["bbox"] for a in coco.dataset["annotations"]}
    assert {image["file_name"] for image in coco.dataset["images"]} >= {"1.jpg"}
    for name, (x1, y1, x2, y2) in BOXES.items():
        assert found[name] == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=1)


@pytest.mark.parametrize(("kind", "write"), [("yolo", write_yolo), ("labelme", write_labelme)])
def test_outlines_become_label_images_with_the_names_of_their_values(root, kind, write):
    more = write(root / "labels")
    assert run(root, kind, root / "masks", *more) == 0
    assert (root / "masks" / "classes.txt").read_text().split() == ["background", "car", "sky"]
    labels = np.array(Image.open(root / "masks" / "1.png"))
    assert labels.shape == (30, 40)
    for value, (x1, y1, x2, y2) in enumerate(BOXES.values(), start=1):
        assert (labels[y1 + 1 : y2, x1 + 1 : x2] == value).all()
        assert abs((labels == value).sum() - (x2 - x1) * (y2 - y1)) <= 2 * (x2 - x1 + y2 - y1)


def test_coco_files_become_label_images_too_where_the_smaller_object_is_seen(root):
    polygons = [[0, 0, 30, 0, 30, 20, 0, 20], [5, 5, 10, 5, 10, 10, 5, 10]]
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 40, "height": 30}],
        "categories": [{"id": 1, "name": "road"}, {"id": 2, "name": "car"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": category, "iscrowd": 0, "segmentation": [p], "area": 1, "bbox": b}
            for i, (category, p, b) in enumerate([(2, polygons[1], [5, 5, 5, 5]), (1, polygons[0], [0, 0, 30, 20])])
        ],
    }
    (root / "labels" / "a.json").write_text(json.dumps(content))
    places = ["--images", str(root / "photos"), "--labels", str(root / "labels" / "a.json")]
    assert import_labels.main(["--from", "coco", *places, "--out", str(root / "masks")]) == 0
    labels = np.array(Image.open(root / "masks" / "1.png"))
    names = (root / "masks" / "classes.txt").read_text().split()
    assert names[labels[7, 7]] == "car"
    assert names[labels[15, 20]] == "road"
    assert names[labels[28, 38]] == "background"


@pytest.mark.parametrize("relative", [False, True])
def test_labels_of_photos_in_folders_lie_in_the_same_folders(root, relative, monkeypatch):
    monkeypatch.chdir(root)
    outline = {"iscrowd": 0, "segmentation": [[5, 5, 20, 5, 20, 20, 5, 20]], "area": 225, "bbox": [5, 5, 15, 15]}
    names = ("camera 1/a.jpg", "camera 2/b.JPG")
    content = {
        "images": [{"id": i, "file_name": name, "width": 40, "height": 30} for i, name in enumerate(names)],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, **outline} for i in range(2)],
    }
    (root / "labels" / "a.json").write_text(json.dumps(content))
    for name in names:
        (root / "cameras" / name).parent.mkdir(parents=True)
        Image.new("RGB", (40, 30)).save(root / "cameras" / name)
    photos = "cameras" if relative else str(root / "cameras")
    places = ["--from", "coco", "--images", photos, "--labels", str(root / "labels" / "a.json")]
    assert import_labels.main([*places, "--out", str(root / "masks")]) == 0
    assert find_suffixes(root / "cameras", root / "masks") == ([".JPG", ".jpg"], ".png")
    assert (root / "masks" / "camera 2" / "b.png").is_file()
    assert import_labels.main([*places, "--out", str(root / "again.json")]) == 0
    assert {image["file_name"] for image in COCO(str(root / "again.json")).dataset["images"]} == set(names)


@pytest.mark.parametrize(
    ("kind", "prepare", "message"),
    [
        ("labelme", lambda root: None, "no object in"),
        ("labelme", lambda root: (root / "labels" / "1.json").write_text("{"), "cannot be read as labelme"),
        ("yolo", lambda root: None, "data.yaml is needed"),
        ("coco", lambda root: None, "has its labels in a file"),
    ],
)
def test_what_cannot_be_read_is_named_and_nothing_written(root, kind, prepare, message, capsys):
    prepare(root)
    assert run(root, kind, root / "out.json") == 2
    error = capsys.readouterr().err
    assert error.startswith("import_labels.py: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (root / "out.json").exists()


def write_yolo_boxes(root: Path) -> list[str]:
    (root / "1.txt").write_text("0 0.5 0.5 0.3 0.4\n1 0.2 0.2 0.2 0.2\n")
    (root.parent / "data.yaml").write_text("names: [car, sky]\n")
    return ["--data", str(root.parent / "data.yaml")]


@pytest.mark.parametrize(("kind", "write"), [("voc", write_voc), ("yolo", write_yolo_boxes)])
def test_boxes_make_no_label_images(root, kind, write, capsys):
    more = write(root / "labels")
    assert run(root, kind, root / "masks", *more) == 2
    assert "boxes without outlines" in capsys.readouterr().err
    assert not (root / "masks").exists()


def test_shapes_that_are_left_out_are_told_in_a_line(root, capsys):
    write_labelme(root / "labels")
    file = root / "labels" / "1.json"
    content = json.loads(file.read_text())
    content["shapes"].append({"label": "sky", "points": [[1, 1], [5, 5]], "shape_type": "line", "group_id": None})
    file.write_text(json.dumps(content))
    assert run(root, "labelme", root / "train.json") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("import_labels.py: warning: ")
    assert "'line'" in line
