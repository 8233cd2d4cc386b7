"""Cascade Mask R-CNN at 1024 pixels with large-scale jitter: detectron2's recipe for Swin, with FocalNet in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from torch import nn

from focalnet_backbone.detectron2.jobs import load_job

CONFIGS = Path(__file__).parents[2] / "configs" / "detectron2"
NAMES = {"base_lrf": (128, [9, 9, 9, 9]), "large_fl4": (192, [3, 3, 3, 3])}


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


@pytest.fixture
def job(name):
    return load_job(CONFIGS / f"cascade_mask_rcnn_focalnet_{name}_lsj_50ep.py", ["train.device=meta"])


def test_the_model_and_the_training_are_those_of_the_recipe(job, name):
    width, windows = NAMES[name]
    cfg = job.cfg
    with torch.device("meta"):
        model = job.model()
    config = model.backbone.bottom_up.config
    assert (config.embed_dim, config.focal_windows, config.drop_path_rate) == (width, windows, 0.4)
    assert model.backbone.padding_constraints["square_size"] == 1024
    assert len(model.roi_heads.box_head) == 3
    for head in model.roi_heads.box_head:
        assert [type(part).__name__ for part in head].count("Conv2d") == 4
    assert sum(isinstance(part, nn.Conv2d) for part in model.proposal_generator.rpn_head.conv.modules()) == 2

    assert cfg.train.init_checkpoint == f"focalnet_{name}"
    assert cfg.train.max_iter == 92187
    assert cfg.dataloader.train.total_batch_size == 64
    schedule = instantiate(cfg.lr_multiplier)
    assert schedule(0.5) == pytest.approx(1.0)
    assert schedule(0.9) == pytest.approx(0.1)
    assert schedule(0.97) == pytest.approx(0.01)
    assert schedule(0.0) == pytest.approx(0.001)
    _, resize, crop = map(instantiate, cfg.dataloader.train.mapper.augmentations)
    assert (resize.min_scale, resize.max_scale, tuple(crop.crop_size)) == (0.1, 2.0, (1024, 1024))

    cfg.optimizer.params.model = model
    groups = instantiate(cfg.optimizer).param_groups
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    for module in model.modules():
        # detectron2's LayerNorm over channels is none of PyTorch's, and decays in its own recipes, too.
        for parameter in module.parameters(recurse=False):
            assert decays[id(parameter)] == (0.0 if isinstance(module, nn.LayerNorm) else 0.05)
    assert {group["lr"] for group in groups} == {4e-5}


def test_the_header_names_the_file_and_what_is_inferred(name):
    path = CONFIGS / f"cascade_mask_rcnn_focalnet_{name}_lsj_50ep.py"
    header = path.read_text().split("from ")[0] + path.read_text()[:700]
    assert f"--config-file configs/detectron2/{path.name}" in header
    assert "Inferred" in header
