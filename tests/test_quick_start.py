"""The README's few lines for each framework do what they say."""

from __future__ import annotations

import focalnet_backbone.openmmlab  # noqa: F401  # isort: skip  (lets mmseg and mmdet be imported)
from pathlib import Path

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from focalnet_backbone.openmmlab.runners import load_config
from tests.readme import code_blocks

CORE, DETECTRON2, MMSEG, MMDET = [block for _, block in code_blocks("In a few lines")]
CHANNELS = [96, 192, 384, 768]


def test_the_core_gives_the_four_maps():
    names = {"images": torch.zeros(1, 3, 64, 64)}
    exec(CORE, names)
    assert [feature.shape[1] for feature in names["features"].values()] == CHANNELS


@pytest.mark.parametrize(
    "base", ["COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"]
)
def test_a_detectron2_config_with_an_fpn_builds(base):
    cfg = get_cfg()
    cfg.merge_from_file(model_zoo.get_config_file(base))
    cfg.MODEL.DEVICE = "cpu"
    exec(DETECTRON2, {"cfg": cfg})
    bottom_up = build_model(cfg).backbone.bottom_up
    assert list(bottom_up.channels.values()) == CHANNELS
    assert bottom_up.config.focal_levels == [3, 3, 3, 3]


@pytest.mark.parametrize(("scope", "text"), [("mmseg", MMSEG), ("mmdet", MMDET)])
def test_a_config_of_openmmlab_builds(scope, text, tmp_path: Path):
    (tmp_path / "own.py").write_text(text)
    cfg = load_config(tmp_path / "own.py")
    if scope == "mmseg":
        import mmseg.models  # noqa: F401
        from mmseg.registry import MODELS
    else:
        import mmdet.models  # noqa: F401
        from mmdet.registry import MODELS
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    assert list(model.backbone.channels.values()) == CHANNELS
    assert model.backbone.config.focal_levels == [3, 3, 3, 3]
