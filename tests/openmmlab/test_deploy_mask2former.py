"""Mask2Former in a file: the same classes of pixels, segments and objects as by the framework."""

from __future__ import annotations

import focalnet_backbone.openmmlab  # noqa: F401  # isort: skip  (lets mmdet be imported)
import json
from operator import itemgetter
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from PIL import Image
from pycocotools import mask as masks

from focalnet_backbone.command import export, predict
from focalnet_backbone.export.sources import open_exportable
from focalnet_backbone.features.predictions import no_class
from focalnet_backbone.openmmlab.deploy import open_graph
from focalnet_backbone.openmmlab.predict import OpenMMLabPredictor
from tests.openmmlab.small_detectors import write_small_mask2former

SIZES = [(64, 64), (93, 61), (50, 211)]


@pytest.fixture(scope="module", params=["semantic", "panoptic", "instances"])
def model(request, tmp_path_factory) -> tuple[Path, Path]:
    return write_small_mask2former(request.param, tmp_path_factory.mktemp("mask2former"))


@pytest.fixture(scope="module")
def photos(sample_dataset, tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    image = Image.open(sample_dataset / "images" / "training" / "00001.jpg")
    for number, size in enumerate(SIZES):
        image.resize(size).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def test_the_module_tells_what_the_framework_tells(model, photos):
    predictor = OpenMMLabPredictor(*model, device="cpu")
    graph, _ = open_graph(*model, photos=True)
    for path in photos:
        image = np.asarray(Image.open(path))
        expected = predictor.predict(path, image)
        with torch.no_grad():
            found = dict(zip(graph.outputs, graph(torch.from_numpy(image.copy())[None]), strict=True))
        predictor.draw(image, expected, 0.5)
        if "boxes" in found:
            _check_instances(found, expected.raw.pred_instances)
            continue
        labels = found["labels"][0].numpy()
        labels[labels == len(predictor.meta["classes"])] = no_class(expected.labels.dtype)
        assert (labels != expected.labels).mean() < 1e-3
        if "panoptic" in found:
            segments = expected.raw.pred_panoptic_seg.sem_seg
            assert (found["panoptic"] != segments).float().mean() < 1e-3
            assert len(segments.unique()) > 1
        else:
            torch.testing.assert_close(found["logits"][0], expected.raw.seg_logits.data, atol=1e-4, rtol=1e-4)


def _check_instances(found: dict[str, torch.Tensor], expected: InstanceData) -> None:
    assert len(expected) == len(found["boxes"]) > 10
    # By class and score, as scores of two classes may be as good as equal.
    order, wanted = (found["labels"] + found["scores"]).argsort(), (expected.labels + expected.scores).argsort()
    torch.testing.assert_close(found["scores"][order], expected.scores[wanted], atol=1e-4, rtol=0)
    assert torch.equal(found["labels"][order], expected.labels[wanted])
    torch.testing.assert_close(found["boxes"][order], expected.bboxes[wanted])
    assert (found["masks"][order].bool() != expected.masks[wanted]).float().mean() < 1e-3


def test_a_file_predicts_what_the_framework_does(model, photos, tmp_path):
    path = tmp_path / "model.onnx"
    arguments = [*map(str, model), "--to", "onnx", "--out", str(path), "--size", "61x93"]
    assert export.main(arguments) == 0
    photo = str(photos[1])
    assert predict.main([*map(str, model), photo, "--out", str(tmp_path / "eager")]) == 0
    assert predict.main([str(path), photo, "--out", str(tmp_path / "onnx")]) == 0
    if (tmp_path / "eager" / "predictions.json").exists():
        _check_files_of_instances(tmp_path / "eager", tmp_path / "onnx")
    else:
        expected, found = (np.asarray(Image.open(tmp_path / kind / "1.png")) for kind in ("eager", "onnx"))
        assert (expected != found).mean() < 1e-3
    told = json.loads((tmp_path / "model_report.json").read_text())
    assert told["outputs"] == list(open_exportable(*map(str, model)).outputs)


def test_torchscript_agrees_as_well(model, tmp_path):
    path = tmp_path / "model.pt"
    assert export.main([*map(str, model), "--to", "torchscript", "--out", str(path), "--size", "61x93"]) == 0
    report = json.loads((tmp_path / "model_report.json").read_text())
    assert max(max(one["differences"].values()) for one in report["comparisons"]) < 1e-3


def _check_files_of_instances(*folders: Path) -> None:
    expected, found = (
        sorted(json.loads((folder / "predictions.json").read_text()), key=itemgetter("category_id", "score"))
        for folder in folders
    )
    assert len(found) == len(expected) > 10
    for one, other in zip(expected, found, strict=True):
        assert one["category_id"] == other["category_id"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert one["bbox"] == pytest.approx(other["bbox"], abs=0.01)
        assert (masks.decode(one["segmentation"]) != masks.decode(other["segmentation"])).mean() < 1e-3
