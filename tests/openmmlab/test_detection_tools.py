"""The tools on a config of mmdetection: training, exact resume, testing with dumped predictions."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from focalnet_backbone.command import test as test_tool
from focalnet_backbone.command import train as train_tool
from focalnet_backbone.data_check.openmmlab import check_config

CONFIG = """
_base_ = ["mmdet::atss/atss_r50_fpn_1x_coco.py"]
custom_imports = dict(imports=["focalnet_backbone.openmmlab"])
model = dict(
    backbone=dict(_delete_=True, type="FocalNet", embed_dim=4, depths=[1, 1, 1, 1], drop_path_rate=0.2),
    neck=dict(in_channels=[4, 8, 16, 32], out_channels=8),
    bbox_head=dict(num_classes=4, in_channels=8, feat_channels=32, stacked_convs=1),
    test_cfg=dict(score_thr=0.0),
)
metainfo = dict(classes=("ball", "tile", "cone", "star"))
pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root="ROOT",
        metainfo=metainfo,
        ann_file="coco/instances_training.json",
        data_prefix=dict(img="images/training"),
        pipeline=pipeline,
    ),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root="ROOT",
        metainfo=metainfo,
        ann_file="coco/instances_validation.json",
        data_prefix=dict(img="images/validation"),
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file="ROOT/coco/instances_validation.json")
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=2)
"""


@pytest.fixture
def config(sample_dataset: Path, tmp_path: Path) -> Path:
    path = tmp_path / "detector.py"
    path.write_text(CONFIG.replace("ROOT", str(sample_dataset)))
    return path


def train(config: Path, work_dir: Path, *flags: str) -> None:
    name = f"experiment_name={work_dir.name}"
    assert train_tool.main([str(config), "--work-dir", str(work_dir), *flags, "--cfg-options", name]) == 0


def test_a_detector_trains_resumes_exactly_and_is_tested(config, tmp_path, capfd):
    train(config, tmp_path / "whole")
    (tmp_path / "part").mkdir()
    shutil.copy(tmp_path / "whole" / "epoch_1.pth", tmp_path / "part")
    train(config, tmp_path / "part", "--resume")
    weights, expected = (
        torch.load(tmp_path / name / "epoch_2.pth", weights_only=True)["state_dict"] for name in ("part", "whole")
    )
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())

    arguments = [str(config), str(tmp_path / "whole" / "epoch_2.pth"), "--work-dir", str(tmp_path), "--tta"]
    options = ["--cfg-options", "experiment_name=detector_test"]
    assert test_tool.main([*arguments, "--out", str(tmp_path / "found.pkl"), *options]) == 0
    assert "bbox_mAP" in "".join(capfd.readouterr())
    assert len(pickle.loads((tmp_path / "found.pkl").read_bytes())) == 3

    (tmp_path / "found.pkl").write_bytes(b"a user's")
    assert test_tool.main([*arguments, "--out", str(tmp_path / "found.pkl"), *options]) == 2
    assert "found.pkl exists already" in "".join(capfd.readouterr())
    assert (tmp_path / "found.pkl").read_bytes() == b"a user's"


def test_a_missing_coco_dataset_is_one_line_with_the_expected_layout(config, tmp_path, capfd):
    config.write_text(CONFIG.replace("ROOT", "nowhere"))
    assert train_tool.main([str(config)]) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert all(word in line for word in ("nowhere", "coco/instances_training.json", "images/validation"))


@pytest.mark.parametrize("content", [b'{"images": [', b"\xff\xfe", b"", b"[]", b"{}"])
def test_damaged_annotations_are_named(config, sample_dataset, tmp_path, capfd, content):
    root = Path(shutil.copytree(sample_dataset, tmp_path / "data"))
    (root / "coco" / "instances_training.json").write_bytes(content)
    config.write_text(CONFIG.replace("ROOT", str(root)))
    options = ["--work-dir", str(tmp_path / "work"), "--cfg-options", "experiment_name=damaged"]
    assert train_tool.main([str(config), *options]) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith(f"train.py: {root}/coco/instances_training.json is not ")


def test_an_assertion_without_message_is_told_by_its_code(config, tmp_path, capfd):
    options = ["model.neck.in_channels=(4,8,16,32)", "experiment_name=assertion"]
    assert train_tool.main([str(config), "--work-dir", str(tmp_path / "work"), "--cfg-options", *options]) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("train.py: assert isinstance(in_channels, list) (AssertionError, ")
    assert "fpn.py:" in line


def test_a_head_of_other_classes_than_the_data_s_is_named(config, capfd):
    config.write_text(config.read_text().replace("num_classes=4", "num_classes=80"))
    assert train_tool.main([str(config)]) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line == "train.py: model.bbox_head.num_classes is 80, but the data has 4 (metainfo.classes)"


def test_datasets_named_by_their_class_have_its_classes(sample_dataset):
    from mmdet.datasets import CocoDataset

    dataset = {"type": CocoDataset, "data_root": str(sample_dataset), "ann_file": "coco/instances_training.json"}
    cfg = Config({"train_dataloader": {"dataset": dataset}, "model": {"roi_head": {"bbox_head": [{"num_classes": 4}]}}})
    (head, classes) = check_config(cfg, ("train_dataloader",)).findings.errors
    assert "num_classes is 4, but the data has 80" in head
    assert "none of the 80 classes of the config" in classes
    cfg.model.roi_head.bbox_head[0].num_classes = 80
    assert check_config(cfg, ("train_dataloader",)).findings.errors == [classes]
