"""Predictions on images: label maps, overlays with a legend, detections."""

from __future__ import annotations

import focalnet_backbone.openmmlab  # noqa: F401  # isort: skip  (lets mmdet be imported)
import json
from pathlib import Path
from types import SimpleNamespace

import mmdet
import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image, ImageOps
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.features.predictions import PredictionPlan, predict_to_files
from focalnet_backbone.openmmlab.predict import OpenMMLabPredictor, load_model
from focalnet_backbone.openmmlab.runners import load_config
from tests.openmmlab.conftest import SAMPLE_CONFIG


def predict(config: Path, weights: Path, inputs: list[Path], out: Path, device: str = "cpu", **options) -> list[Path]:
    plan = PredictionPlan.make(inputs, out)
    return predict_to_files(OpenMMLabPredictor(config, weights, device=device), plan, **options).written


@pytest.fixture
def config(tiny_options: list[str], tmp_path: Path) -> Path:
    """The sample config with the tiny model, as a file."""
    cfg = Config.fromfile(SAMPLE_CONFIG)
    cfg.merge_from_dict(
        {
            "model.backbone.embed_dim": 4,
            "model.backbone.depths": (1, 1, 1, 1),
            "model.decode_head.in_channels": (4, 8, 16, 32),
            "model.decode_head.channels": 4,
            "model.auxiliary_head.in_channels": 16,
        }
    )
    cfg.dump(tmp_path / "tiny.py")
    return tmp_path / "tiny.py"


@pytest.fixture
def photo(sample_dataset: Path, tmp_path: Path) -> Path:
    """A photograph that is neither square nor of a size that the strides divide, rotated by its EXIF tag."""
    image = Image.open(sample_dataset / "images" / "training" / "00001.jpg").crop((0, 0, 61, 47))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "photo.jpg", exif=exif)
    return tmp_path / "photo.jpg"


def test_segmentation_writes_a_label_map_and_an_overlay_with_legend(trained, config, photo, tmp_path):
    labels, overlay = predict(config, trained.checkpoint, [photo], tmp_path / "out")

    assert [labels.name, overlay.name] == ["photo.png", "photo_overlay.png"]
    indices = np.asarray(Image.open(labels))
    assert indices.shape == (61, 47)  # Upright.
    assert indices.dtype == np.uint8
    assert indices.max() < 8
    picture = Image.open(overlay)
    assert picture.width > 47
    assert picture.height >= 61
    # The legend shows the colour of every class that the label map has, and of no other.
    palette = Config.fromfile(SAMPLE_CONFIG).dataset.metainfo.palette
    legend = {tuple(pixel) for pixel in np.asarray(picture)[:, 47:].reshape(-1, 3)}
    assert {i for i, colour in enumerate(palette) if tuple(colour) in legend} == set(np.unique(indices))


def test_pixels_of_nothing_that_a_panoptic_model_is_sure_of_are_no_class(photo, tmp_path):
    config = SAMPLE_CONFIG.parents[1] / "mmdet" / "mask2former_focalnet_sample_panoptic.py"
    init_default_scope("mmdet")
    model = MODELS.build(load_config(config).model)
    model.panoptic_head.cls_embed.bias.data[-1] = 100  # All queries say that they are nothing.
    torch.save({"state_dict": model.state_dict()}, tmp_path / "nothing.pth")
    labels, overlay = predict(config, tmp_path / "nothing.pth", [photo], tmp_path / "out")
    assert np.unique(Image.open(labels)).tolist() == [255]
    painted = np.asarray(Image.open(overlay))[:61, :47]
    np.testing.assert_array_equal(painted, np.asarray(ImageOps.exif_transpose(Image.open(photo))))


def test_old_checkpoints_name_their_classes_in_capitals(trained, config, photo, tmp_path, monkeypatch):
    weights = torch.load(trained.checkpoint, weights_only=True)["state_dict"]
    meta = {"CLASSES": tuple("ABCDEFGH"), "PALETTE": [[i, 0, 200] for i in range(8)]}
    torch.save({"state_dict": weights, "meta": meta}, tmp_path / "release.pth")
    labels, overlay = predict(config, tmp_path / "release.pth", [photo], tmp_path / "out")
    colours = {tuple(pixel) for pixel in np.asarray(Image.open(overlay))[:, 47:].reshape(-1, 3)}
    assert {(int(i), 0, 200) for i in np.unique(np.asarray(Image.open(labels)))} <= colours


@pytest.fixture
def detector(photo, tmp_path):
    """A Mask R-CNN of two classes, with weights that find things, and a file of annotations with ids of their own."""
    cfg = Config.fromfile(Path(mmdet.__file__).parent / ".mim/configs/mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py")
    cfg.model.backbone = {"type": "FocalNet", "embed_dim": 4, "depths": [1, 1, 1, 1]}
    cfg.model.neck.update(in_channels=[4, 8, 16, 32], out_channels=8)
    cfg.model.rpn_head.update(in_channels=8, feat_channels=8)
    heads = cfg.model.roi_head
    heads.bbox_roi_extractor.out_channels = heads.mask_roi_extractor.out_channels = 8
    heads.bbox_head.update(in_channels=8, fc_out_channels=16, num_classes=2)
    heads.mask_head.update(in_channels=8, conv_out_channels=8, num_convs=1, num_classes=2)
    dataset = cfg.test_dataloader.dataset
    dataset.update(data_root=str(tmp_path), ann_file="truth.json", metainfo={"classes": ("tile", "ball")})
    dataset.pipeline[1].scale = (96, 64)
    cfg.dump(tmp_path / "detector.py")
    content = {
        "images": [{"id": 1, "width": 47, "height": 61}],
        "categories": [{"id": 7, "name": "ball"}, {"id": 3, "name": "tile"}],
        "annotations": [],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    init_default_scope("mmdet")
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    with torch.no_grad():
        model.roi_head.bbox_head.fc_cls.bias[0] = 5.0
        model.roi_head.mask_head.conv_logits.bias.fill_(5.0)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "detector.pth")
    return tmp_path / "detector.py", tmp_path / "detector.pth"


def test_detection_writes_an_overlay_and_coco_s_results(detector, photo, tmp_path):
    overlay, results = predict(*detector, [photo], tmp_path / "out")
    assert [overlay.name, results.name] == ["photo_overlay.png", "predictions.json"]
    assert Image.open(overlay).size == (47, 61)
    detections = json.loads(results.read_text())
    assert detections
    for detection in detections:
        assert (detection["image_id"], detection["category_id"], detection["file_name"]) == (1, 3, str(photo))
        left, top, width, height = detection["bbox"]
        assert left >= 0
        assert top >= 0
        assert left + width <= 47.01
        assert top + height <= 61.01
        # The mask head says yes everywhere: a mask fills its box.
        assert detection["segmentation"]["size"] == [61, 47]
        assert mask_utils.area(detection["segmentation"]) == pytest.approx(width * height, rel=0.3, abs=60)
    assert len(COCO(tmp_path / "truth.json").loadRes(str(results)).getAnnIds()) == len(detections)


def test_detections_have_what_the_frameworks_own_test_dumps(detector, photo, tmp_path):
    config, weights = detector
    predict(config, weights, [photo], tmp_path / "out", score_threshold=0.3)
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    inferencer = init_detector(str(config), str(weights), device="cpu")
    expected = inference_detector(inferencer, np.asarray(ImageOps.exif_transpose(Image.open(photo)))[..., ::-1].copy())
    instances = expected.pred_instances[expected.pred_instances.scores >= 0.3]
    np.testing.assert_allclose([d["score"] for d in found], instances.scores, atol=1e-5)
    corners = [[x, y, x + w, y + h] for x, y, w, h in (d["bbox"] for d in found)]
    np.testing.assert_allclose(corners, instances.bboxes, atol=1e-3)


def test_mistakes_are_errors_that_name_the_file(trained, config, photo, tmp_path, monkeypatch):
    def run(weights: Path = trained.checkpoint, images: tuple[Path, ...] = (photo,)) -> SimpleNamespace:
        return predict(config, weights, images, tmp_path / "out")

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.png").write_bytes(b"text")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg"):
        run(images=(tmp_path / "nowhere.jpg",))
    with pytest.raises(ValueError, match="would both be written to"):
        run(images=(photo, tmp_path / "other" / "photo.png"))
    with pytest.raises(ValueError, match="device must be"):
        predict(config, trained.checkpoint, [photo], tmp_path / "out", device="cuda:9")
    with pytest.raises(CheckpointError, match=r"photo\.jpg is not a weight file"):
        run(weights=photo)
    backbone = {k: v for k, v in torch.load(trained.checkpoint)["state_dict"].items() if k.startswith("backbone.")}
    torch.save(backbone, tmp_path / "backbone.pth")
    with pytest.raises(CheckpointError, match=r"backbone\.pth does not fit .* lacks 69"):
        run(weights=tmp_path / "backbone.pth")
    assert not (tmp_path / "out").exists()


ODD_METAS = {
    "none": None,
    "a list": [1],
    "a list for the dataset": {"dataset_meta": [1]},
    "too few classes": {"dataset_meta": {"classes": list("abc"), "palette": [[1, 2, 3]] * 3}},
    "classes that are no names": {"dataset_meta": {"classes": [1] * 8}},
    "too short a palette": {"dataset_meta": {"classes": list("abcdefgh"), "palette": [[1, 2, 3]] * 3}},
    "a palette of words": {"dataset_meta": {"classes": list("abcdefgh"), "palette": "coco"}},
    "a colour that is none": {"CLASSES": list("abcdefgh"), "PALETTE": [[1, 2, 300]] * 8},
}


def test_whatever_a_checkpoint_says_of_its_classes_there_is_a_name_and_a_colour_of_each(trained, config, tmp_path):
    checkpoint = torch.load(trained.checkpoint, weights_only=False)
    for name, meta in ODD_METAS.items():
        torch.save({"state_dict": checkpoint["state_dict"], "meta": meta}, tmp_path / "odd.pth")
        _, found = load_model(load_config(config), tmp_path / "odd.pth", "cpu")
        assert len(found["classes"]) == len(found["palette"]) == 8, name
        assert (found["classes"][0] == "a") == ("palette" in name or "colour" in name), name
        assert all(0 <= value <= 255 for colour in found["palette"] for value in colour), name


def test_a_head_with_nan_is_refused_by_name(trained, config, photo, tmp_path):
    checkpoint = torch.load(trained.checkpoint, weights_only=False)
    checkpoint["state_dict"]["decode_head.conv_seg.bias"][0] = float("inf")
    torch.save(checkpoint, tmp_path / "damaged.pth")
    with pytest.raises(CheckpointError, match=r"damaged\.pth: decode_head\.conv_seg\.bias contain NaN"):
        predict(config, tmp_path / "damaged.pth", [photo], tmp_path / "out")
