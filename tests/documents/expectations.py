"""What pages take as given, and what must be true after they have been run, beyond what they show as output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_backbone, build_model

from tests.documents.run import PageRun

CHANNELS = [96, 192, 384, 768]


def coco_config(name: str) -> CfgNode:
    """A config of detectron2's model zoo, on the CPU."""
    cfg = get_cfg()
    cfg.merge_from_file(model_zoo.get_config_file(name))
    cfg.MODEL.DEVICE = "cpu"
    return cfg


GIVEN: dict[str, Callable[[], dict[str, Any]]] = {
    "README.md": lambda: {
        "images": torch.zeros(1, 3, 64, 64),
        "cfg": coco_config("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"),
    }
}
"""Names that a page's snippets use and do not define."""


def check_readme(run: PageRun) -> None:
    """Each framework's few lines build a model on the variant that they name."""
    assert [feature.shape[1] for feature in run.names["features"].values()] == CHANNELS
    backbones = [build_model(run.names["cfg"]).backbone.bottom_up, *(model.backbone for model in run.models)]
    assert len(backbones) == 3
    for backbone in backbones:
        assert list(backbone.channels.values()) == CHANNELS
        assert backbone.config.focal_levels == [3, 3, 3, 3]


def check_pyramids(run: PageRun) -> None:
    """The pictures and files are there."""
    assert Path("pyramid.png").stat().st_size > 20_000
    assert Path("features/chelsea.png.safetensors").is_file()
    assert Path("features/chelsea.png.png").is_file()


def check_pictures(run: PageRun) -> None:
    """The pictures are there."""
    assert Path("pictures/coffee.png.gates.png").is_file()
    assert Path("pictures/overlay/chelsea.png.modulator.png").is_file()
    assert Path("pictures/kernels_stage3.png").is_file()
    assert Path("gates.png").stat().st_size > 20_000


def check_detectron2(run: PageRun) -> None:
    """The snippets build what they say, and the sample's commands end in a picture."""
    model, pyramid = run.names["model"], run.names["pyramid"]
    assert model.backbone.bottom_up.config.focal_windows == [9, 9, 9, 9]
    assert type(model.roi_heads).__name__ == "StandardROIHeads"
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(48.68, abs=0.01)
    assert list(pyramid(torch.zeros(1, 3, 64, 64))) == ["p2", "p3", "p4", "p5", "p6"]
    assert pyramid.bottom_up.config.focal_levels == [3, 3, 3, 3]
    assert Path("outputs/sample/predictions/00001_overlay.png").is_file()


def check_guest(run: PageRun) -> None:
    """The program's lines build what the config names."""
    run.names["cfg"].MODEL.DEVICE = "cpu"
    backbone = build_backbone(run.names["cfg"])
    assert list(backbone.output_shape()) == ["res2", "res3", "res4", "res5"]
    assert backbone.config.focal_windows == [9, 9, 9, 9]
    assert run.names["_C"].nms_rotated


def check_mmsegmentation(run: PageRun) -> None:
    """The config has the windows that it names, and the sample's commands end in pictures."""
    (model,) = run.models
    assert model.backbone.config.focal_windows == [9, 9, 9, 9]
    assert [conv.conv.in_channels for conv in model.decode_head.lateral_convs] == CHANNELS[:3]
    assert {path.name for path in Path("work_dirs/predictions").iterdir()} == {"00001.png", "00001_overlay.png"}


def check_mmdetection(run: PageRun) -> None:
    """The config is a RetinaNet whose stem is frozen."""
    (model,) = run.models
    assert type(model).__name__ == "RetinaNet"
    assert model.backbone.config.focal_windows == [9, 9, 9, 9]
    assert not any(p.requires_grad for p in model.backbone.patch_embed.parameters())


def check_detectors(run: PageRun) -> None:
    """The sample's Mask2Former of mmsegmentation ends in intersections over union."""
    logs = Path("work_dirs/mask2former_focalnet_sample").glob("*/*.log")
    assert any("mIoU" in log.read_text() for log in logs)


def check_models(run: PageRun) -> None:
    """Shapes and labels are those of transformers."""
    shapes = [tuple(x.shape[1:]) for x in run.names["outputs"].reshaped_hidden_states]
    assert shapes == [(96, 56, 56), (192, 28, 28), (384, 14, 14), (768, 7, 7), (768, 7, 7)]
    assert transformers.FocalNetForImageClassification.from_pretrained("cats_and_dogs").config.id2label[1] == "dog"
    features = run.names["backbone"](torch.zeros(1, 3, 96, 96))
    assert [x.shape[1] for x in features.values()] == [32, 64, 128]


def check_checkpoints(run: PageRun) -> None:
    """Every conversion has written its file or folder."""
    for name in ("hf/model.safetensors", "timm.safetensors", "d2.pth", "mmengine.pth"):
        assert Path("converted", name).is_file()


CHECKS: dict[str, Callable[[PageRun], None]] = {
    "README.md": check_readme,
    "docs/checkpoints.md": check_checkpoints,
    "docs/detectron2.md": check_detectron2,
    "docs/detectors.md": check_detectors,
    "docs/guest.md": check_guest,
    "docs/mmdetection.md": check_mmdetection,
    "docs/mmsegmentation.md": check_mmsegmentation,
    "docs/models.md": check_models,
    "docs/pictures.md": check_pictures,
    "docs/pyramids.md": check_pyramids,
}
