"""Predictions of a detector: pictures, and COCO's results format."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image
from pycocotools import mask as masks
from pycocotools.coco import COCO

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.configs import is_mmengine
from focalnet_backbone.detectron2 import FocalNetCheckpointer
from focalnet_backbone.detectron2.predict import predict
from focalnet_backbone.detectron2.train import Run
from tests.d2.conftest import TINY

TOOL = Path(__file__).parents[2] / "tools" / "predict.py"


@pytest.fixture
def weights(tiny_cfg, tmp_path) -> Path:
    """A detector that sees objects of its second class everywhere; its classes have ids of their own."""
    torch.manual_seed(0)
    model = build_model(tiny_cfg)
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias[1] = 5.0
        model.roi_heads.mask_head.predictor.bias.fill_(5.0)
    categories = [{"id": 10 * i, "name": name} for i, name in enumerate(["ball", "tile", "cone", "star"], start=1)]
    run = Run(seed=0, batch_size=2, processes=1, categories=categories)
    FocalNetCheckpointer(model, str(tmp_path), run=run).save("detector")
    return tmp_path / "detector.pth"


@pytest.fixture
def images(sample) -> list[Path]:
    return sorted((sample / "images" / "validation").iterdir())


def test_each_image_gives_a_picture_of_its_size_and_its_detections(weights, images, tmp_path):
    out = tmp_path / "out"
    pictures = predict(TINY, weights, images, out, device="cpu")
    assert pictures == [out / f"{image.stem}.png" for image in images]
    assert sorted(path.name for path in out.iterdir()) == [*(path.name for path in pictures), "predictions.json"]
    for image, picture in zip(images, pictures, strict=True):
        before, after = np.asarray(Image.open(image)), np.asarray(Image.open(picture))
        assert before.shape == after.shape
        assert (before != after).any()

    detections = json.loads((out / "predictions.json").read_text())
    assert {detection["image_id"] for detection in detections} == {1, 2}
    for detection in detections:
        assert detection["category_id"] == 20
        assert detection["file_name"] == str(images[detection["image_id"] - 1])
        assert 0 < detection["score"] <= 1
        left, top, width, height = detection["bbox"]
        assert left >= 0
        assert top >= 0
        assert left + width <= 64.01
        assert top + height <= 64.01
        assert masks.decode(detection["segmentation"]).shape == (64, 64)


def test_cocos_own_tools_read_the_results(weights, images, tmp_path, sample):
    content = json.loads((sample / "coco" / "instances_validation.json").read_text())
    content["categories"] = [{"id": 20, "name": "tile"}]
    content["annotations"] = []
    (tmp_path / "truth.json").write_text(json.dumps(content))
    predict(TINY, weights, images, tmp_path / "out", device="cpu")
    results = COCO(tmp_path / "truth.json").loadRes(str(tmp_path / "out" / "predictions.json"))
    assert set(results.imgToAnns) == {1, 2}


def test_the_threshold_is_for_the_pictures_only(weights, images, tmp_path):
    (picture,) = predict(TINY, weights, images[:1], tmp_path / "out", device="cpu", score_threshold=1.0)
    np.testing.assert_array_equal(np.asarray(Image.open(picture)), np.asarray(Image.open(images[0])))
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())


def test_wrong_images_are_named_before_anything_is_written(weights, images, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / images[0].name).write_bytes(images[0].read_bytes())
    for wrong, error, message in (
        ([images[0], tmp_path / "nowhere.jpg"], FileNotFoundError, "nowhere.jpg"),
        ([images[0], tmp_path / "text.jpg"], ValueError, "text.jpg"),
        ([images[0], tmp_path / images[0].name], ValueError, "would both be written as"),
    ):
        with pytest.raises(error, match=message):
            predict(TINY, weights, wrong, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_an_image_is_not_overwritten_by_its_picture(weights, images, tmp_path):
    Image.open(images[0]).save(tmp_path / "photo.png")
    before = (tmp_path / "photo.png").read_bytes()
    with pytest.raises(ValueError, match="would be written over it"):
        predict(TINY, weights, [tmp_path / "photo.png"], tmp_path, device="cpu")
    assert (tmp_path / "photo.png").read_bytes() == before


def test_weights_of_a_backbone_are_refused(weights, images, tmp_path):
    saved = torch.load(weights, weights_only=True)["model"]
    backbone = {k.removeprefix("backbone.bottom_up."): v for k, v in saved.items() if "bottom_up" in k}
    torch.save(backbone, tmp_path / "backbone.pth")
    with pytest.raises(CheckpointError, match="whole model"):
        predict(TINY, tmp_path / "backbone.pth", images, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("predict_tool", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tool_writes_pictures_and_says_a_users_error_in_one_line(
    tool, weights, images, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    command = [str(TOOL), str(TINY), str(weights), str(images[0]), "--out", "out", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", command)
    assert tool.main() == 0
    assert (tmp_path / "out" / f"{images[0].stem}.png").is_file()
    assert capsys.readouterr().out == f"wrote out/{images[0].stem}.png\n"
    for place, wrong in ((1, "nowhere.yaml"), (2, "nowhere.pth"), (3, "nowhere.jpg")):
        monkeypatch.setattr(sys, "argv", [*command[:place], wrong, *command[place + 1 :]])
        assert tool.main() == 2
        assert re.fullmatch(rf"predict.py: .*{wrong}.*\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("_base_ = ['x.py']\n", True),
        ("with read_base():\n    from .x import *\n", True),
        ("default_scope = 'mmdet'\nmodel = dict(type='MaskRCNN')\n", True),
        ("from .mask_rcnn_focalnet import set_up\nmodel = set_up()\n", False),
    ],
)
def test_mmengines_configs_are_known_from_lazy_ones(tmp_path, content, expected):
    (tmp_path / "config.py").write_text(content)
    assert is_mmengine(tmp_path / "config.py") == expected
