"""Spoilt datasets of COCO's format: each kind is told in one line, by every host, before anything is trained."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import pkgutil
import re

import numpy as np
import pytest

from focalnet_backbone.annotations import coco
from focalnet_backbone.annotations import mend as mending
from tests.data_check.conftest import make_coco


def each(**changes):
    """Change every annotation."""
    return lambda content: [annotation.update(copy.deepcopy(changes)) for annotation in content["annotations"]] and None


def first(**changes):
    """Change the third annotation, one of 002.png: a check that looks at the first image only misses it."""
    return lambda content: content["annotations"][2].update(copy.deepcopy(changes))


def drop(kind, field, only_third=True):
    """Leave a field out."""

    def change(content):
        for entry in content[kind][2:3] if only_third and kind != "categories" else content[kind]:
            del entry[field]

    return change


def boxes(convert):
    """Convert all boxes and leave out the outlines and areas, as of a dataset of boxes."""

    def change(content):
        for annotation in content["annotations"]:
            annotation["bbox"] = convert(*annotation["bbox"])
            annotation.pop("segmentation")

    return change


ERRORS = {
    "no JSON": (lambda c: b'{"images": [', "coco.json is not valid JSON"),
    "empty file": (lambda c: b"", "coco.json is not valid JSON"),
    "byte order mark": (lambda c: b"\xef\xbb\xbf" + json.dumps(c).encode(), "coco.json is not valid JSON.*BOM"),
    "Latin-1": (lambda c: json.dumps(c).replace("ball", "b\u00e4ll").encode("latin-1"), "not text in UTF-8"),
    "list of detections": (lambda c: json.dumps(c["annotations"]).encode(), "it is a list, such as detections"),
    "number": (lambda c: b"3", "it holds int"),
    "images lost": (lambda c: c.pop("images") and None, "no list of 'images'"),
    "no category": (lambda c: c.update(categories=[]), "list of 'categories' is empty"),
    "annotations by id": (lambda c: c.update(annotations={"1": {}}), "no list of 'annotations'"),
    "annotations without list": (lambda c: c.pop("annotations") and None, "no object to .*: it has no list of 'annot"),
    "no annotation": (lambda c: c.update(annotations=[]), "no object to"),
    "all crowds": (each(iscrowd=1), "no object to .*: all 8 annotations are crowds"),
    "image without height": (drop("images", "height"), "1 image without 'height': entry 2"),
    "image without file_name": (drop("images", "file_name"), "1 image without 'file_name': entry 2"),
    "annotation without bbox": (drop("annotations", "bbox"), "1 annotation without 'bbox': entry 2"),
    "annotation without id": (drop("annotations", "id"), "1 annotation without 'id': entry 2"),
    "category without name": (drop("categories", "name"), "2 categories without 'name': entry 0, entry 1"),
    "image id twice": (lambda c: c["images"][1].update(id=1), "1 id of several images: 1;"),
    "annotation id twice": (first(id=1), "1 id of several annotations: 1;"),
    "category id twice": (lambda c: c["categories"][1].update(id=1), "1 id of several categories: 1;"),
    "category name twice": (lambda c: c["categories"][1].update(name="ball"), "1 name of several categories: ball;"),
    "unknown image": (first(image_id=99), "1 annotation of an image that is not listed: annotation 3: image_id 99"),
    "image id as text": (first(image_id="2"), "image_id '2'|mixed ids"),
    "unknown category": (first(category_id=7), "1 annotation of a category that is not listed: annotation 3: cat"),
    "width 0": (lambda c: c["images"][1].update(width=0), "1 image whose width or height .*: 002.png"),
    "height as text": (lambda c: c["images"][1].update(height="32"), "1 image whose width or height .*: 002.png"),
    "box of three": (first(bbox=[1, 2, 3]), "1 annotation whose bbox is not four numbers: annotation 3 of 002.png"),
    "box of text": (first(bbox=["1", "2", "3", "4"]), "1 annotation whose bbox is not four numbers: annotation 3"),
    "empty bbox": (first(bbox=[]), "1 annotation whose bbox is not four numbers: annotation 3"),
    "box of NaN": (first(bbox=[1, 2, math.nan, 4]), "1 annotation whose bbox is not four numbers: annotation 3"),
    "infinite box": (first(bbox=[1, 2, math.inf, 4]), "1 annotation whose bbox is not four numbers: annotation 3"),
    "box of no float": (first(bbox=[1, 2, 10**400, 4]), "1 annotation whose bbox is not four numbers: annotation 3"),
    "negative box": (first(bbox=[9, 9, -4, 4]), "1 box of negative width or height: annotation 3 of 002.png"),
    "box outside": (first(bbox=[400, 9, 4, 4]), "1 box outside of the photo: annotation 3 of 002.png"),
    "boxes by corners": (boxes(lambda x, y, w, h: [x, y, x + w, y + h]), r"boxes look like \[x1, y1, x2, y2\]"),
    "boxes as fractions": (boxes(lambda x, y, w, h: [x / 40, y / 32, w / 40, h / 32]), "boxes are fractions"),
    "iscrowd as text": (first(iscrowd="no"), "1 annotation whose iscrowd is neither 0 nor 1: annotation 3"),
    "photo not there": (lambda c: c["images"][1].update(file_name="x.png"), "1 photo is not there: .*x.png"),
    "photo at an address": (
        lambda c: [image.update(file_name=f"http://localhost/{image['file_name']}") for image in c["images"]] and None,
        "4 photos are not there: .*localhost/001.png",
    ),
    "names by backslashes": (
        lambda c: [image.update(file_name=f"..\\images\\{image['file_name']}") for image in c["images"]] and None,
        "4 photos are not there: .*; names with .* are of Windows alone: write / in their place",
    ),
    "names with a folder": (
        lambda c: [image.update(file_name=f"images/all/{image['file_name']}") for image in c["images"]] and None,
        "4 photos are not there: .*images has '001.png' without images/all/ before it: correct the names",
    ),
    "photo of other letters": (lambda c: c["images"][1].update(file_name="002.PNG"), "the folder has '002.png'"),
    "other size": (lambda c: c["images"][1].update(width=32, height=40), r"002.png \(40x32, in the file 32x40\)"),
    "width null": (lambda c: c["images"][1].update(width=None), "1 image whose width or height .*: 002.png"),
    "name as number": (lambda c: c["images"][1].update(file_name=2), "1 image whose file_name is no name"),
}
MASK_ERRORS = {
    "no segmentation": (
        drop("annotations", "segmentation"),
        "1 object without a 'segmentation'.*: annotation 3 of 002",
    ),
    "segmentation empty": (first(segmentation=[]), "1 object without a 'segmentation'.*: annotation 3 of 002.png"),
    "segmentation null": (first(segmentation=None), "1 object without a 'segmentation'.*: annotation 3 of 002.png"),
    "segmentation as text": (first(segmentation="1 2 3"), "1 segmentation that is neither polygons nor run lengths"),
    "points as pairs": (first(segmentation=[[[1, 2], [3, 4], [5, 6]]]), "1 segmentation that is neither polygons nor"),
    "polygon of NaN": (first(segmentation=[[1, 2, 3, math.nan, 5, 6]]), "1 segmentation that is neither polygons nor"),
    "two points": (first(segmentation=[[1, 2, 3, 4]]), "1 segmentation without a polygon of three points"),
    "odd length": (first(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "1 segmentation without a polygon of three points"),
    "point far away": (
        first(segmentation=[[30, 4, 39, 4, 39, 1e9]]),
        "1 segmentation with a point over a million pixels",
    ),
    "points that no memory holds": (first(segmentation=[[1e308, 1e308, -1e308, 5, 6, 7]]), "a million pixels away"),
    "RLE of other size": (first(segmentation={"size": [9, 9], "counts": [81]}), "1 segmentation by run lengths of ano"),
    "RLE too short": (first(segmentation={"size": [32, 40], "counts": [3]}), "1 segmentation whose run lengths do not"),
    "RLE of rubbish": (first(segmentation={"size": [32, 40], "counts": "~~~"}), "1 segmentation whose run lengths do"),
    "RLE without counts": (first(segmentation={"size": [32, 40]}), "1 segmentation that is neither polygons nor run"),
}
WARNINGS = {
    "no area": (drop("annotations", "area"), "1 annotation without 'area': annotation 3 of 002.png; it is computed"),
    "no iscrowd": (drop("annotations", "iscrowd"), "1 annotation without 'iscrowd': annotation 3 of 002.png"),
    "area 0": (first(area=0), "1 annotation whose area is no number above 0: annotation 3"),
    "area NaN": (first(area=math.nan), "1 annotation whose area is no number above 0: annotation 3"),
    "flat polygon": (first(segmentation=[30, 4, 39, 4, 39, 16]), "1 segmentation as one flat list: annotation 3"),
    "annotation id 0": (first(id=0), "1 annotation with id 0"),
    "box of width 0": (first(bbox=[9, 9, 0, 4]), "1 box of width or height 0: annotation 3 of 002.png"),
    "box over the edge": (first(bbox=[30, 4, 19, 12]), "1 box over the edge of the photo: annotation 3 of 002.png"),
    "box beside outline": (first(bbox=[1, 25, 4, 4]), "1 box away from its outline: annotation 3 of 002.png"),
    "blank after name": (
        lambda c: c["categories"][1].update(name="tile "),
        "1 category name with blanks around it",
    ),
    "category without object": (
        lambda c: c["categories"].append({"id": 9, "name": "star"}),
        "1 category without an object: 'star'",
    ),
    "photo twice": (
        lambda c: c["images"].append({**c["images"][0], "id": 77}),
        "1 photo listed more than once: 001.png",
    ),
    "part of two points": (
        first(segmentation=[[15, 4, 24, 4, 24, 16], [1, 2, 3, 4]]),
        "1 segmentation with parts of less than three points",
    ),
    "crowd by polygon": (first(iscrowd=1), "1 crowd outlined by polygons: annotation 3"),
}


@pytest.mark.parametrize("host", ["detectron2", "mmdet"])
@pytest.mark.parametrize("split", ["train"])
@pytest.mark.parametrize("name", [*ERRORS, *MASK_ERRORS])
def test_what_would_stop_a_training_or_spoil_it_is_one_line(check, tmp_path, host, split, name):
    change, message = {**ERRORS, **MASK_ERRORS}[name]
    bad, good = make_coco(tmp_path / "bad", change), make_coco(tmp_path / "good", seed=1)
    found = getattr(check, host)(bad, good)
    assert found.status == 2
    assert re.search(message, found.errors[-1]), found.errors
    assert "coco.json" in found.errors[-1]
    assert len(found.errors) <= 2, found.errors


@pytest.mark.parametrize("host", ["detectron2", "mmdet"])
@pytest.mark.parametrize("name", WARNINGS)
def test_what_is_mended_or_left_out_is_told(check, tmp_path, host, name):
    change, message = WARNINGS[name]
    bad, good = make_coco(tmp_path / "bad", change), make_coco(tmp_path / "good", seed=1)
    options = {}
    if host == "mmdet" and name == "blank after name":
        options = {"classes": ("ball", "tile "), "count": 2}
        good = make_coco(tmp_path / "also", change, seed=2)
    elif name == "blank after name":
        good = make_coco(tmp_path / "also", change, seed=2)
    elif name == "category without object":
        good = make_coco(tmp_path / "also", change, seed=2)
        options = {"classes": ("ball", "tile", "star"), "count": 3} if host == "mmdet" else {}
    found = getattr(check, host)(bad, good, **options)
    assert found.status == 0, found.errors
    assert any(re.search(message, line) for line in found.warnings), found.warnings


@pytest.mark.parametrize("host", ["detectron2", "mmdet"])
def test_an_annotation_file_is_parsed_once_and_loaded_by_the_framework_from_that(check, tmp_path, host, monkeypatch):
    train, val = make_coco(tmp_path / "train"), make_coco(tmp_path / "val", count=3, seed=1)
    loaded: list[int] = []
    monkeypatch.setattr(json, "load", lambda file: pytest.fail(f"{file.name} is read again"))
    monkeypatch.setattr(mending, "mend", lambda content: loaded.append(len(content["images"])))
    assert getattr(check, host)(train, val).status == 0
    assert loaded == [4, 3]


@pytest.mark.parametrize(
    ("host", "loader"),
    [("detectron2", "detectron2.datasets.load_coco_json"), ("mmdet", "openmmlab.datasets.build_dataset")],
)
def test_a_lack_of_memory_is_not_kept_as_the_files_fault(check, tmp_path, host, loader, monkeypatch):
    train, val = make_coco(tmp_path / "train"), make_coco(tmp_path / "val", seed=1)
    place = f"focalnet_backbone.{loader}"
    original = pkgutil.resolve_name(place.replace("datasets.", "datasets:"))

    def fail(*arguments, lazy_init=False, **settings):
        if not lazy_init:
            raise MemoryError
        return original(*arguments, lazy_init=True, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(place, fail)
        with contextlib.suppress(MemoryError):
            assert getattr(check, host)(train, val).status == 2
    found = getattr(check, host)(train, val)
    assert (found.status, found.errors) == (0, [])


def test_polygons_are_checked_by_their_bounds_and_files_of_large_ones_come_out_the_same(tmp_path):
    rng = np.random.default_rng(0)
    folder = make_coco(tmp_path / "data", count=20)
    content = json.loads((folder / "coco.json").read_text())
    for annotation in content["annotations"]:
        points = rng.uniform(-3, 41, 2 * rng.integers(3, 20))
        annotation["segmentation"] = [points.round(2).tolist(), [1, 2, 3], [0, 0, 5, 9, 9, 5]][: rng.integers(1, 4)]
        annotation["bbox"] = [*rng.uniform(0, 20, 2).tolist(), *rng.uniform(0.5, 25, 2).tolist()]
    whole = coco._File(copy.deepcopy(content)).facts()
    for annotation in content["annotations"]:
        lengths = [len(part) for part in annotation["segmentation"]]
        assert [len(part) for part in coco._simplify(annotation)["segmentation"]] == lengths
    assert coco._File(content).facts() == whole
    assert whole["odd"]["boxes beside outlines"][0] > 5
