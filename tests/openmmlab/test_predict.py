"""Predictions on images: label maps, overlays with a legend, detections."""

from __future__ import annotations

import focalnet_backbone.openmmlab  # noqa: F401  # isort: skip  (lets mmdet be imported)
from pathlib import Path
from types import SimpleNamespace

import mmdet
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.openmmlab.predict import load_model, predict
from focalnet_backbone.openmmlab.runners import load_config
from tests.openmmlab.conftest import SAMPLE_CONFIG


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
    labels, overlay = predict(config, trained.checkpoint, [photo], tmp_path / "out", device="cpu")

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


def test_old_checkpoints_name_their_classes_in_capitals(trained, config, photo, tmp_path, monkeypatch):
    weights = torch.load(trained.checkpoint, weights_only=True)["state_dict"]
    meta = {"CLASSES": tuple("ABCDEFGH"), "PALETTE": [[i, 0, 200] for i in range(8)]}
    torch.save({"state_dict": weights, "meta": meta}, tmp_path / "release.pth")
    labels, overlay = predict(config, tmp_path / "release.pth", [photo], tmp_path / "out", device="cpu")
    colours = {tuple(pixel) for pixel in np.asarray(Image.open(overlay))[:, 47:].reshape(-1, 3)}
    assert {(int(i), 0, 200) for i in np.unique(np.asarray(Image.open(labels)))} <= colours


def test_detection_writes_an_overlay(photo, tmp_path):
    cfg = Config.fromfile(Path(mmdet.__file__).parent / ".mim" / "configs" / "atss" / "atss_r50_fpn_1x_coco.py")
    cfg.model.backbone = {"type": "FocalNet", "embed_dim": 4, "depths": [1, 1, 1, 1]}
    cfg.model.neck.in_channels = [4, 8, 16, 32]
    cfg.test_dataloader.dataset.pipeline[1].scale = (96, 64)
    cfg.dump(tmp_path / "atss.py")
    init_default_scope("mmdet")
    torch.save({"state_dict": MODELS.build(cfg.model).state_dict()}, tmp_path / "atss.pth")

    (overlay,) = predict(tmp_path / "atss.py", tmp_path / "atss.pth", [photo], tmp_path / "out", device="cpu")

    assert overlay.name == "photo_overlay.png"
    assert Image.open(overlay).size == (47, 61)


def test_mistakes_are_errors_that_name_the_file(trained, config, photo, tmp_path, monkeypatch):
    def run(weights: Path = trained.checkpoint, images: tuple[Path, ...] = (photo,)) -> SimpleNamespace:
        return predict(config, weights, images, tmp_path / "out", device="cpu")

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.png").write_bytes(b"text")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg"):
        run(images=(tmp_path / "nowhere.jpg",))
    with pytest.raises(ValueError, match="would write the same file"):
        run(images=(photo, tmp_path / "other" / "photo.png"))
    with pytest.raises(ValueError, match=r"photo\.png"):
        run(images=(tmp_path / "other" / "photo.png",))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"no GPU\), got 'cuda:0'"):
        predict(config, trained.checkpoint, [photo], tmp_path / "out", device="cuda:0")
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
        predict(config, tmp_path / "damaged.pth", [photo], tmp_path / "out", device="cpu")
