"""What annotations lack is put in as COCO's own tools need it, and every framework reads it so."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_tools
import pytest
from detectron2.data.datasets import load_coco_json
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import focalnet_backbone.openmmlab  # noqa: F401  (lets mmcv.ops be imported)
from focalnet_backbone.annotations.coco import _run_lengths
from focalnet_backbone.annotations.mend import mend, mend_as_loaded
from tests.data_check.conftest import make_coco


@pytest.fixture
def quiet():
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def spoil(content: dict) -> None:
    """Leave out whatever can be put in again."""
    for number, annotation in enumerate(content["annotations"]):
        del annotation["iscrowd"]
        annotation["area"] = [None, 0, "9"][number % 3]
        if number % 2:
            del annotation["area"]
        annotation["segmentation"] = annotation["segmentation"][0]
        annotation["id"] = number


def measure(path: Path, detections: list[dict], task: str) -> float:
    """COCO's AP."""
    truth = COCO(str(path))
    evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(detections)), task)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[0]


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_a_mended_file_is_measured_as_the_whole_one(tmp_path, quiet, task):
    whole, spoilt = make_coco(tmp_path / "whole") / "coco.json", make_coco(tmp_path / "spoilt", spoil) / "coco.json"
    rng = np.random.default_rng(0)
    keys = ("image_id", "category_id", "bbox", "segmentation")
    detections = [{key: a[key] for key in keys} for a in json.loads(whole.read_text())["annotations"][1:]]
    for detection in detections:
        detection["score"] = float(rng.random())
        x, y, w, h = detection["bbox"]
        outline = [x, y, x + w, y, x + w, y + h, x, y + h]
        detection["segmentation"] = mask_tools.merge(mask_tools.frPyObjects([outline], 32, 40))
        if task == "segm":
            del detection["bbox"]
    mend_as_loaded()
    expected = measure(whole, detections, task)
    assert 0.5 < expected < 1
    assert measure(spoilt, detections, task) == expected


def test_detectron2_and_mmdetection_load_a_mended_file_as_the_whole_one(tmp_path, quiet):
    from mmdet.datasets import CocoDataset

    whole, spoilt = make_coco(tmp_path / "whole"), make_coco(tmp_path / "spoilt", spoil)
    mend_as_loaded()

    def load_detectron2(root: Path) -> list:
        return [image["annotations"] for image in load_coco_json(str(root / "coco.json"), str(root / "images"))]

    def load_mmdet(root: Path) -> list:
        classes = {"classes": ("ball", "tile")}
        dataset = CocoDataset(ann_file=str(root / "coco.json"), metainfo=classes, data_prefix={"img": ""})
        return [dataset.get_data_info(i)["instances"] for i in range(len(dataset))]

    for load in (load_detectron2, load_mmdet):
        assert load(spoilt) == load(whole)


def test_the_area_is_that_of_the_mask():
    rng = np.random.default_rng(0)
    mask = np.asfortranarray(rng.random((30, 40)) > 0.7, dtype=np.uint8)
    compressed = mask_tools.encode(mask)
    compressed["counts"] = compressed["counts"].decode()
    runs = np.diff(np.flatnonzero(np.diff(np.r_[1 - mask[0, 0], mask.ravel("F"), 2])))
    counts = ([0] if mask[0, 0] else []) + np.r_[runs].tolist()
    assert _run_lengths(compressed["counts"]) == counts
    triangle = [10.5, 10, 30, 10, 10.5, 25]
    outlines = [compressed, {"size": [30, 40], "counts": counts}, [triangle], [triangle, triangle], None]
    annotations = [{"id": i + 1, "bbox": [1, 2, 3, 4], "segmentation": o} for i, o in enumerate(outlines)]
    mend({"annotations": annotations})
    area = 19.5 * 15 / 2
    assert [a["area"] for a in annotations] == [mask.sum(), mask.sum(), area, 2 * area, 12]


def test_what_is_whole_or_beyond_repair_stays(tmp_path):
    content = json.loads((make_coco(tmp_path / "whole") / "coco.json").read_text())
    before = copy.deepcopy(content)
    mend(content)
    assert content == before
    for broken in (None, [], {"annotations": None}, {"annotations": [3, {}, {"bbox": "x", "segmentation": [1, 2]}]}):
        mend(broken)
