"""Predictions of a detector: pictures, and COCO's results format."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image
from pycocotools import mask as masks
from pycocotools.coco import COCO

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.command.predict import main
from focalnet_backbone.configs import is_mmengine
from focalnet_backbone.detectron2 import FocalNetCheckpointer
from focalnet_backbone.detectron2.predict import Detectron2Predictor
from focalnet_backbone.detectron2.train import Run
from focalnet_backbone.features.predictions import PredictionPlan, PredictionSummary, predict_to_files
from tests.d2.conftest import TINY


def predict(config: Path, weights: Path, inputs: list[Path], out: Path, **options) -> PredictionSummary:
    plan = PredictionPlan.make(inputs, out)
    return predict_to_files(Detectron2Predictor(config, weights, device="cpu"), plan, **options)


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
    summary = predict(TINY, weights, images, out)
    pictures = [out / f"{image.stem}_overlay.png" for image in images]
    assert summary.written == [*pictures, out / "predictions.json"]
    assert sorted(out.iterdir()) == summary.written
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
    predict(TINY, weights, images, tmp_path / "out")
    results = COCO(tmp_path / "truth.json").loadRes(str(tmp_path / "out" / "predictions.json"))
    assert set(results.imgToAnns) == {1, 2}


def test_a_threshold_is_for_pictures_and_file_alike(weights, images, tmp_path):
    everything = predict(TINY, weights, images[:1], tmp_path / "all").detections
    scores = [d["score"] for d in json.loads((tmp_path / "all" / "predictions.json").read_text())]
    assert everything == len(scores) > 1
    middle = sorted(scores)[len(scores) // 2]
    predict(TINY, weights, images[:1], tmp_path / "some", score_threshold=middle)
    some = [d["score"] for d in json.loads((tmp_path / "some" / "predictions.json").read_text())]
    assert some == [score for score in scores if score >= middle]
    assert len(some) < len(scores)
    predict(TINY, weights, images[:1], tmp_path / "none", score_threshold=1.0)
    assert json.loads((tmp_path / "none" / "predictions.json").read_text()) == []
    picture = np.asarray(Image.open(tmp_path / "none" / f"{images[0].stem}_overlay.png"))
    np.testing.assert_array_equal(picture, np.asarray(Image.open(images[0])))


def test_a_users_file_is_not_overwritten_and_results_of_before_are(weights, images, tmp_path):
    taken = tmp_path / f"{images[1].stem}_overlay.png"
    Image.open(images[0]).save(taken)
    before = taken.read_bytes()
    summary = predict(TINY, weights, images, tmp_path)
    assert summary.images == 1
    (reason,) = summary.failed
    assert str(taken) in reason
    assert "--force" in reason
    assert taken.read_bytes() == before
    assert predict(TINY, weights, images, tmp_path, force=True).images == 2
    assert predict(TINY, weights, images, tmp_path).images == 2
    (tmp_path / "predictions.json").write_text("[]")
    with pytest.raises(FileExistsError, match=r"predictions\.json.* not written by this program"):
        predict(TINY, weights, images, tmp_path)


def test_a_deep_grey_photo_gives_what_its_twin_of_8_bits_gives(weights, images, tmp_path):
    grey = np.asarray(Image.open(images[0]).convert("L"))
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "b.png")
    predict(TINY, weights, [tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "out")
    detections = json.loads((tmp_path / "out" / "predictions.json").read_text())
    eight, sixteen = ([d["bbox"] for d in detections if d["image_id"] == number] for number in (1, 2))
    assert len(eight) > 0
    assert eight == sixteen


def test_weights_of_a_backbone_are_refused(weights, images, tmp_path):
    saved = torch.load(weights, weights_only=True)["model"]
    backbone = {k.removeprefix("backbone.bottom_up."): v for k, v in saved.items() if "bottom_up" in k}
    torch.save(backbone, tmp_path / "backbone.pth")
    with pytest.raises(CheckpointError, match="whole model"):
        predict(TINY, tmp_path / "backbone.pth", images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_tool_says_a_users_error_in_one_line(weights, images, tmp_path, capsys):
    command = [str(TINY), str(weights), str(images[0]), "--out", str(tmp_path / "out"), "--device", "cpu"]
    for place, wrong in ((0, "nowhere.yaml"), (1, "nowhere.pth"), (2, "nowhere.jpg")):
        assert main([*command[:place], wrong, *command[place + 1 :]]) == 2
        assert re.fullmatch(rf"predict.py: .*{wrong}.*\n", capsys.readouterr().err)
    with pytest.raises(SystemExit):
        main([*command, "--score-threshold", "50"])
    assert "must be a number from 0 to 1, got '50'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_tool_does_all_photos_of_folders_but_the_bad_ones_which_it_names(weights, images, tmp_path, capsys):
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    (photos / "a.png").write_bytes(images[0].read_bytes())
    (photos / "more" / "b.jpg").write_bytes(images[1].read_bytes())
    (photos / "bad.jpg").write_text("no image")
    Image.fromarray(np.zeros((8, 8), np.float32)).save(photos / "more" / "depth.tif")
    command = [str(TINY), str(weights), str(photos), str(images[0].parent / "*2.*"), "--device", "cpu"]
    assert main([*command, "--out", str(photos), "--no-overlay"]) == 1
    output, errors = capsys.readouterr()
    assert re.search(r"3 images done, 2 failed, \d+ detections, written to", output)
    assert [line for line in errors.splitlines() if line.startswith("failed: ")] == [
        f"failed: cannot read {photos / 'bad.jpg'} as an image: cannot identify image file '{photos / 'bad.jpg'}'",
        f"failed: cannot read {photos / 'more' / 'depth.tif'} as an image: it holds floating-point values, whose range "
        "is unknown; convert it to 8 or 16 bits",
    ]
    names = {detection["file_name"] for detection in json.loads((photos / "predictions.json").read_text())}
    assert names == {str(photos / "a.png"), str(photos / "more" / "b.jpg"), str(images[1])}
    assert main([*command, "--out", str(photos)]) == 1
    assert (photos / "more" / "b_overlay.png").is_file()
    # What it wrote into the folder of the photos is no photo of the next run.
    assert main([*command, "--out", str(photos)]) == 1
    assert "3 images done, 2 failed" in capsys.readouterr().out


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
