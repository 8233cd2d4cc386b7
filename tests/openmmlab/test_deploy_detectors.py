"""Detectors of mmdetection in a file: the same objects as by the framework, for photos of any size."""

from __future__ import annotations

import focalnet_backbone.openmmlab  # noqa: F401  # isort: skip  (lets mmdet be imported)
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from pycocotools import mask as masks

from focalnet_backbone.command import export, predict
from focalnet_backbone.export.formats import SUFFIXES
from focalnet_backbone.export.run import paste_mask
from focalnet_backbone.openmmlab.deploy import open_graph
from focalnet_backbone.openmmlab.predict import OpenMMLabPredictor
from tests.openmmlab.small_detectors import CLASSES, SHRINK, write_small_detector

MASK_RCNN = "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"
ANY_SIZE = ("dino/dino-4scale_r50_8xb2-12e_coco.py",)
"""Detectors that are exported with free sizes here, which takes twice as long; tests/d2 does so with Mask R-CNN."""


@pytest.fixture(scope="module")
def mask_rcnn(tmp_path_factory) -> tuple[Path, Path]:
    return write_small_detector(MASK_RCNN, tmp_path_factory.mktemp("mask_rcnn"))


@pytest.fixture(scope="module")
def photos(sample_dataset, tmp_path_factory) -> Path:
    """Photos smaller and larger than the config's scale, wide and high.

    Padding is of equal pixels, whose boxes have equal scores: there is little of it, as any order of theirs is right.
    """
    folder = tmp_path_factory.mktemp("photos")
    image = Image.open(sample_dataset / "images" / "training" / "00001.jpg")
    for number, size in enumerate([(64, 64), (93, 61), (50, 211)]):
        image.resize(size).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("name", SHRINK)
def test_the_module_finds_what_mmdetection_finds(name, photos, tmp_path):
    config, weights = write_small_detector(name, tmp_path)
    predictor = OpenMMLabPredictor(config, weights, device="cpu")
    graph, told = open_graph(config, weights, photos=True)
    assert told["classes"] == list(CLASSES)
    for path in sorted(photos.iterdir()):
        image = np.asarray(Image.open(path))
        expected = predictor.predict(path, image).raw.pred_instances
        with torch.no_grad():
            found = dict(zip(graph.outputs, graph(torch.from_numpy(image.copy())[None]), strict=True))
        assert len(expected) > 10
        torch.testing.assert_close(found["boxes"], expected.bboxes, atol=1e-3, rtol=0)
        torch.testing.assert_close(found["scores"], expected.scores, atol=1e-5, rtol=0)
        assert torch.equal(found["labels"], expected.labels)
        assert ("masks" in found) == ("masks" in expected)
        if "masks" in found:
            crops = zip(found["masks"], found["boxes"].tolist(), strict=True)
            pasted = [paste_mask(crop.numpy(), box, image.shape[:2]) for crop, box in crops]
            assert (np.stack(pasted) != np.asarray(expected.masks)).mean() < 1e-4


@pytest.mark.parametrize("name", SHRINK)
def test_a_file_predicts_the_objects_of_the_framework(name, photos, tmp_path):
    config, weights = write_small_detector(name, tmp_path)
    path = tmp_path / "model.onnx"
    fixed = [] if name in ANY_SIZE else ["--size", "61x93"]
    assert export.main([str(config), str(weights), "--to", "onnx", "--out", str(path), *fixed]) == 0
    photos = photos / "1.png" if fixed else photos
    assert predict.main([str(config), str(weights), str(photos), "--out", str(tmp_path / "eager")]) == 0
    assert predict.main([str(path), str(photos), "--out", str(tmp_path / "onnx")]) == 0
    expected, found = (json.loads((tmp_path / kind / "predictions.json").read_text()) for kind in ("eager", "onnx"))
    assert len(found) == len(expected) >= 10
    for one, other in zip(expected, found, strict=True):
        assert (one["image_id"], one["category_id"]) == (other["image_id"], other["category_id"])
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert one["bbox"] == pytest.approx(other["bbox"], abs=0.01)
        if "segmentation" in one:
            assert (masks.decode(one["segmentation"]) != masks.decode(other["segmentation"])).mean() < 1e-3
    assert len(list((tmp_path / "onnx").glob("*_overlay.png"))) == (1 if fixed else 3)


@pytest.mark.parametrize(("name", "target"), [(MASK_RCNN, "pt2"), *((name, "torchscript") for name in SHRINK)])
def test_other_formats_agree_as_well(name, target, tmp_path):
    path = tmp_path / f"model{SUFFIXES[target]}"
    arguments = [*map(str, write_small_detector(name, tmp_path)), "--to", target, "--out", str(path), "--size", "61x93"]
    assert export.main(arguments) == 0
    report = json.loads((tmp_path / "model_report.json").read_text())
    assert max(max(one["differences"].values()) for one in report["comparisons"]) < 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.test_cfg.rcnn.nms": {"type": "soft_nms", "iou_threshold": 0.5}}, "only plain non-maximum suppression"),
        ({"model.test_cfg.rcnn.mask_thr_binary": 0.3}, "masks with a threshold other than 0.5"),
        ({"model.test_cfg.rpn.nms_pre": -1}, "without a largest number of boxes"),
        ({"model.roi_head.bbox_head.bbox_coder.clip_border": False}, "not cut at the image's border"),
        ({"test_dataloader.dataset.pipeline.1.keep_ratio": False}, "only one bilinear Resize"),
    ],
)
def test_what_a_file_cannot_hold_is_refused_by_name(mask_rcnn, tmp_path, change, message):
    config, weights = mask_rcnn
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(change)
    cfg.dump(tmp_path / "changed.py")
    with pytest.raises(ValueError, match=message):
        open_graph(tmp_path / "changed.py", weights, photos=True)
    with pytest.raises(ValueError, match="a detector takes photos"):
        open_graph(config, weights, photos=False)
