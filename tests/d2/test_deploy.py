"""Mask R-CNN in a file: the same objects as by detectron2, for photos of any size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.layers import paste_masks_in_image
from detectron2.modeling import build_model
from PIL import Image
from pycocotools import mask as masks

from focalnet_backbone.command import export, predict
from focalnet_backbone.detectron2 import FocalNetCheckpointer
from focalnet_backbone.detectron2.deploy import MaskRCNNGraph, _preparation
from focalnet_backbone.detectron2.jobs import load_yaml
from focalnet_backbone.detectron2.train import Run
from focalnet_backbone.export.check import OBJECTS_APART, _compare_objects
from focalnet_backbone.export.formats import SUFFIXES
from focalnet_backbone.export.run import paste_mask
from tests.d2.conftest import TINY

SMALLER = f"""
_BASE_: {TINY}
MODEL:
  FOCALNET:
    FOCAL_LEVELS: [1, 1, 1, 1]
  FPN:
    IN_FEATURES: [res4, res5]
  ANCHOR_GENERATOR:
    SIZES: [[10], [20]]
  RPN:
    IN_FEATURES: [p4, p5]
  ROI_HEADS:
    IN_FEATURES: [p4]
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    """The recipe with less to trace, which is what takes time."""
    path = tmp_path_factory.mktemp("config") / "smaller.yaml"
    path.write_text(SMALLER)
    return path


@pytest.fixture(scope="module")
def cfg(config):
    return load_yaml(config)


@pytest.fixture(scope="module")
def model(cfg):
    """A detector whose scores differ, so that the order of its boxes is its own."""
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight.mul_(300)
        model.proposal_generator.rpn_head.objectness_logits.weight.mul_(30)
        model.roi_heads.mask_head.predictor.weight.mul_(100)
    return model


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    categories = [{"id": 10 * i, "name": name} for i, name in enumerate(["ball", "tile", "cone", "star"], start=1)]
    FocalNetCheckpointer(model, str(folder), run=Run(seed=0, batch_size=2, processes=1, categories=categories)).save(
        "d"
    )
    return folder / "d.pth"


@pytest.fixture(scope="module")
def photos(sample, tmp_path_factory) -> Path:
    """Photos of which one has the test's size already, and two are resized."""
    folder = tmp_path_factory.mktemp("photos")
    image = Image.open(next((sample / "images" / "validation").iterdir()))
    for number, size in enumerate([(64, 64), (64, 150), (110, 64)]):
        image.resize(size).save(folder / f"{number}.png")
    return folder


def test_the_module_finds_what_detectron2_finds(cfg, model, photos):
    mapper = DatasetMapper(cfg, False)
    graph = MaskRCNNGraph(model, _preparation(mapper, model)).eval()
    for path in sorted(photos.iterdir()):
        with torch.no_grad():
            expected = model([mapper({"file_name": str(path)})])[0]["instances"]
            boxes, scores, labels, crops = graph(torch.from_numpy(np.asarray(Image.open(path)))[None])
        assert len(expected) > 4
        torch.testing.assert_close(boxes, expected.pred_boxes.tensor, atol=1e-3, rtol=0)
        torch.testing.assert_close(scores, expected.scores, atol=1e-5, rtol=0)
        assert torch.equal(labels, expected.pred_classes)
        size = expected.image_size
        pasted = [paste_mask(c.numpy(), b, size) for c, b in zip(crops, boxes.tolist(), strict=True)]
        np.testing.assert_array_equal(np.stack(pasted), expected.pred_masks.numpy())


def test_masks_are_pasted_as_detectron2_does_at_the_borders_too():
    crops = torch.rand((3, 28, 28), generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[0.0, 0.0, 40.0, 30.0], [-3.2, 5.5, 10.1, 29.9], [30.7, 2.0, 40.0, 2.9]])
    expected = paste_masks_in_image(crops, boxes, (30, 40))
    found = [paste_mask(crop.numpy(), box, (30, 40)) for crop, box in zip(crops, boxes.tolist(), strict=True)]
    np.testing.assert_array_equal(np.stack(found), expected.numpy())


def test_a_file_predicts_the_objects_of_the_framework(config, weights, photos, tmp_path):
    path = tmp_path / "model.onnx"
    assert export.main([str(config), str(weights), "--to", "onnx", "--out", str(path)]) == 0
    assert predict.main([str(config), str(weights), str(photos), "--out", str(tmp_path / "eager")]) == 0
    assert predict.main([str(path), str(photos), "--out", str(tmp_path / "onnx")]) == 0
    expected, found = (json.loads((tmp_path / kind / "predictions.json").read_text()) for kind in ("eager", "onnx"))
    assert len(found) == len(expected) > 12
    for one, other in zip(expected, found, strict=True):
        assert (one["image_id"], one["category_id"]) == (other["image_id"], other["category_id"])
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert one["bbox"] == pytest.approx(other["bbox"], abs=0.05)
        assert (masks.decode(one["segmentation"]) != masks.decode(other["segmentation"])).mean() < 0.01
    assert len(list((tmp_path / "onnx").glob("*_overlay.png"))) == 3


@pytest.mark.parametrize("target", ["pt2", "torchscript"])
def test_other_formats_agree_as_well(config, weights, tmp_path, target):
    path = tmp_path / f"model{SUFFIXES[target]}"
    arguments = [str(config), str(weights), "--to", target, "--out", str(path), "--size", "61x93"]
    assert export.main(arguments) == 0
    report = json.loads((tmp_path / "model_report.json").read_text())
    assert max(max(one["differences"].values()) for one in report["comparisons"]) < 1e-3


def test_objects_are_compared_whatever_their_order():
    boxes, scores = torch.rand(50, 4) * 100, torch.rand(50)
    labels, crops = torch.arange(50) % 3, torch.rand(50, 4, 4)
    names = ("boxes", "scores", "labels", "masks")
    every = [boxes, scores, labels, crops]
    order = torch.randperm(50)
    shuffled = [values[order] for values in every]
    assert _compare_objects(names, every, shuffled, "x") == ({"objects": 0.0}, {"objects": OBJECTS_APART})
    for changed in range(4):
        other = [values.clone() for values in every]
        other[changed][:5] += 1
        with pytest.raises(ValueError, match=r"^10\.0% of the objects"):
            _compare_objects(names, every, other, "x")
    assert _compare_objects(names, [v[:0] for v in every], [v[:0] for v in every], "x")[0] == {"objects": 0.0}
    with pytest.raises(ValueError, match=r"^100\.0% of the objects"):
        _compare_objects(names, every, [v[:0] for v in every], "x")


def test_another_architecture_is_refused_by_name(model):
    with pytest.raises(ValueError, match="a meta architecture Linear cannot be exported, only GeneralizedRCNN"):
        MaskRCNNGraph(torch.nn.Linear(1, 1), None)
