"""Segmenters in a file: the same labels as by the framework, for photos of any size."""

from __future__ import annotations

import focalnet_backbone.openmmlab  # noqa: F401  # isort: skip  (lets mmseg be imported)
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image
from torch import nn

from focalnet_backbone.command import export, predict
from focalnet_backbone.export.formats import SUFFIXES
from focalnet_backbone.export.sources import open_exportable
from focalnet_backbone.features.predictions import UnfitImage
from focalnet_backbone.openmmlab.deploy import open_graph
from focalnet_backbone.openmmlab.deploy.segmenters import PoolToGrid
from focalnet_backbone.openmmlab.predict import OpenMMLabPredictor
from tests.openmmlab.small_detectors import write_small_upernet


@pytest.mark.parametrize("bins", [1, 2, 3, 6, (2, 5)])
@pytest.mark.parametrize("size", [(1, 1), (4, 7), (6, 6), (13, 20)])
def test_pooling_by_products_is_adaptive_pooling(bins, size):
    x = torch.randn((2, 3, *size), generator=torch.Generator().manual_seed(0))
    pair = (bins, bins) if isinstance(bins, int) else bins
    torch.testing.assert_close(PoolToGrid(pair)(x), nn.AdaptiveAvgPool2d(bins)(x))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> tuple[Path, Path]:
    """The files of a UPerNet's config and of its checkpoint."""
    return write_small_upernet(tmp_path_factory.mktemp("upernet"))


@pytest.fixture(scope="module")
def segmenter(model, tmp_path_factory) -> Path:
    """What the command line writes of it."""
    path = tmp_path_factory.mktemp("onnx") / "upernet.onnx"
    assert export.main([*map(str, model), "--to", "onnx", "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def photos(sample_dataset, tmp_path_factory) -> Path:
    """Photos smaller and larger than the config's scale, wide and high."""
    folder = tmp_path_factory.mktemp("photos")
    image = Image.open(sample_dataset / "images" / "training" / "00001.jpg")
    for number, size in enumerate([(64, 64), (301, 187), (90, 211)]):
        image.resize(size).save(folder / f"{number}.png")
    return folder


def test_a_file_predicts_the_labels_and_pictures_of_the_framework(segmenter, model, photos, tmp_path):
    assert predict.main([*map(str, model), str(photos), "--out", str(tmp_path / "eager")]) == 0
    assert predict.main([str(segmenter), str(photos), "--out", str(tmp_path / "onnx")]) == 0
    names = sorted(path.name for path in (tmp_path / "eager").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "onnx").iterdir())
    assert len(names) == 6
    for name in names:
        expected, found = (np.asarray(Image.open(tmp_path / kind / name)) for kind in ("eager", "onnx"))
        assert (expected != found).mean() < 1e-3, name


def test_a_line_of_a_photo_is_labelled_by_the_file_and_left_out_by_the_framework(segmenter, model, tmp_path):
    line = tmp_path / "line.png"
    Image.new("RGB", (900, 2)).save(line)  # Of whose height nothing is left at the config's scale of 128.
    assert predict.main([str(segmenter), str(line), "--out", str(tmp_path / "onnx")]) == 0
    assert Image.open(tmp_path / "onnx" / "line.png").size == (900, 2)
    predictor = OpenMMLabPredictor(*model, device="cpu")
    with pytest.raises(UnfitImage, match=r"line\.png is 2x900, which the test pipeline cannot resize"):
        predictor.predict(line, np.zeros((2, 900, 3), np.uint8))


@pytest.mark.parametrize("target", ["pt2", "torchscript"])
def test_other_formats_agree_as_well(model, tmp_path, target):
    path = tmp_path / f"model{SUFFIXES[target]}"
    arguments = [*map(str, model), "--to", target, "--out", str(path), "--size", "61x93"]
    assert export.main(arguments) == 0
    report = json.loads((tmp_path / "model_report.json").read_text())
    assert max(max(one["differences"].values()) for one in report["comparisons"]) < 1e-3


def test_a_file_tells_classes_colours_scale_and_the_checkpoint_s_hash(model):
    told = open_exportable(*map(str, model)).describe()
    assert told["classes"][0] == "ball"
    assert told["palette"][0] == [230, 60, 60]
    assert told["fit"] == (128, 128)
    assert told["sha256"] == hashlib.sha256(model[1].read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.test_cfg": {"mode": "slide", "crop_size": (32, 32), "stride": (16, 16)}}, "sliding windows"),
        ({"model.data_preprocessor.test_cfg": {"size": (64, 64)}}, "pads to a size in testing"),
    ],
)
def test_what_a_file_cannot_hold_is_refused_by_name(model, tmp_path, change, message):
    cfg = Config.fromfile(model[0])
    cfg.merge_from_dict(change)
    cfg.dump(tmp_path / "changed.py")
    with pytest.raises(ValueError, match=message):
        open_exportable(str(tmp_path / "changed.py"), str(model[1]))


@pytest.mark.parametrize("classes", [1, 2])
def test_one_output_for_two_classes_is_labelled_by_its_threshold(model, photos, tmp_path, classes):
    cfg = Config.fromfile(model[0])
    cfg.model.decode_head.update(num_classes=classes, out_channels=1, threshold=0.51)
    cfg.model.decode_head.loss_decode.update(class_weight=None, use_sigmoid=True)
    cfg.dump(tmp_path / "binary.py")
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmseg"):
        torch.save({"state_dict": MODELS.build(cfg.model).state_dict()}, tmp_path / "binary.pth")
    predictor = OpenMMLabPredictor(tmp_path / "binary.py", tmp_path / "binary.pth", device="cpu")
    graph, told = open_graph(tmp_path / "binary.py", tmp_path / "binary.pth", photos=True)
    assert told["classes"] == ["class 0", "class 1"]
    assert graph.threshold == predictor.model.decode_head.threshold == 0.51
    image = np.asarray(Image.open(photos / "1.png"))
    with torch.no_grad():
        logits, _ = graph(torch.from_numpy(image.copy())[None])
        assert logits.shape == (1, 1, *image.shape[:2])
        # One that random weights are on both sides of.
        graph.threshold = predictor.model.decode_head.threshold = float(logits.sigmoid().median())
        _, labels = graph(torch.from_numpy(image.copy())[None])
    expected = predictor.predict(photos / "1.png", image)
    predictor.draw(image, expected, 0.5)
    assert 0.4 < expected.labels.mean() < 0.6
    assert (labels[0].numpy() != expected.labels).mean() < 1e-3


def test_an_onnx_file_of_another_program_is_refused_in_one_line(segmenter, photos, tmp_path, capsys):
    import onnx

    model = onnx.load(segmenter)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    assert predict.main([str(tmp_path / "other.onnx"), str(photos), "--out", str(tmp_path / "out")]) == 2
    assert "was not written by `focalnet export`" in capsys.readouterr().err.splitlines()[-1]
    (tmp_path / "broken.onnx").write_bytes(b"text")
    assert predict.main([str(tmp_path / "broken.onnx"), str(photos), "--out", str(tmp_path / "out")]) == 2
    assert "broken.onnx cannot be read by onnxruntime" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
