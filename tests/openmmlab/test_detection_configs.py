"""The detectors' configs: the paper's recipe, its models, and the release's checkpoints."""

from __future__ import annotations

import copy
import functools
import json
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from focalnet_backbone.openmmlab.runners import load_config
from focalnet_backbone.openmmlab.training import build_training_runner, check_channels
from tests.conftest import DATA, load_golden
from tests.documents.pages import read_page
from tests.openmmlab.conftest import ROOT

import mmdet.models  # noqa: F401  # isort: skip  (needs the plugin before)
from mmdet.registry import MODELS  # isort: skip

CONFIGS = ROOT / "configs" / "mmdet"
PUBLISHED = json.loads((DATA / "downstream.json").read_text())
MASK_RCNN = {
    f"mask_rcnn_focalnet_{r['size']}_{r['kernels']}_{r['schedule']}": r
    for r in PUBLISHED["mask_rcnn_training"]["results"]
}
OTHERS = {
    f"{detector}_focalnet_tiny_{kernels}_3x": PUBLISHED["other_detectors"][detector]
    for detector in ("cascade_mask_rcnn", "atss", "sparse_rcnn")
    for kernels in ("srf", "lrf")
}
RELEASE_NAMES = {"sparse_rcnn": "sparse_rcnn_focalnet_tiny_300_proposals_3x_coco"}


@pytest.fixture(autouse=True)
def _scope():
    with DefaultScope.overwrite_default_scope("mmdet"):
        yield


@pytest.fixture(params=[*MASK_RCNN, *OTHERS])
def name(request) -> str:
    return request.param


@functools.cache
def load(name: str) -> Config:
    return load_config(CONFIGS / f"{name}.py")


def build(name: str) -> nn.Module:
    with torch.device("meta"):
        return MODELS.build(copy.deepcopy(load(name).model))


def test_there_is_a_config_for_each_set_up():
    others = ("dino", "mask2former", "mask_rcnn_focalnet_sample")
    found = {path.stem for path in CONFIGS.glob("*.py")}
    ours = {name for name in found if "focalnet" in name and not name.startswith(others)}
    assert ours == {*MASK_RCNN, *OTHERS}


def test_models_have_the_published_backbone_and_parameters(name):
    model = build(name)
    detector, _, setting = name.partition("_focalnet_")
    size, kernels, schedule = setting.split("_")
    release = f"{RELEASE_NAMES.get(detector, f'{detector}_focalnet_{size}_{schedule}_coco')}_{kernels}"
    expected = PUBLISHED["backbones"][release]
    assert {knob: getattr(model.backbone.config, knob) for knob in expected} == expected
    assert load(name).model.backbone.init_cfg.checkpoint == f"focalnet_{size}_{kernels}"
    check_channels(load(name).model)

    parameters = round(sum(p.numel() for p in model.parameters()) / 1e6, 2)
    if detector == "mask_rcnn":
        assert parameters == PUBLISHED["mask_rcnn_params_measured_in_mmdetection_3"][f"{size}_{kernels}"]
    elif kernels == "lrf":
        assert f" {parameters:.1f} M" in OTHERS[name]


def test_configs_train_by_the_paper_s_recipe(name):
    cfg = load(name)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.betas) == ("AdamW", 1e-4, (0.9, 0.999))
    assert optimizer.weight_decay == 0.05
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys == {"norm": {"decay_mult": 0.0}}
    assert ("clip_grad" in cfg.optim_wrapper) == name.startswith("sparse_rcnn")
    assert cfg.train_dataloader.batch_size * 8 == PUBLISHED["mask_rcnn_training"]["images_per_iteration"]

    first, second, epochs = (9, 11, 12) if name.endswith("1x") else (27, 33, 36)
    warmup, steps = cfg.param_scheduler
    assert (warmup.type, warmup.start_factor, warmup.end, warmup.by_epoch) == ("LinearLR", 0.001, 500, False)
    assert (steps.milestones, steps.gamma, steps.by_epoch) == ([first, second], 0.1, True)
    assert cfg.train_cfg.max_epochs == steps.end == epochs

    loading, labels, flip, choice, _ = cfg.train_dataloader.dataset.pipeline
    assert (loading.type, labels.with_bbox, flip.prob) == ("LoadImageFromFile", True, 0.5)
    assert labels.get("with_mask", False) == ("mask_rcnn" in name)
    (whole,), (before, crop, after) = choice.transforms
    for resize in (whole, after):
        assert list(map(tuple, resize.scales)) == [(side, 1333) for side in range(480, 801, 32)]
        assert resize.keep_ratio
    assert list(map(tuple, before.scales)) == [(side, 1333) for side in (400, 500, 600)]
    assert (crop.crop_type, tuple(crop.crop_size), crop.allow_negative_crop) == ("absolute_range", (384, 600), True)
    preprocessor = cfg.model.data_preprocessor
    assert (preprocessor.mean, preprocessor.std) == ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    assert (preprocessor.bgr_to_rgb, preprocessor.pad_size_divisor) == (True, 32)


def test_cascade_s_box_heads_are_four_convolutions_with_giou_loss():
    for kernels in ("srf", "lrf"):
        for head in load(f"cascade_mask_rcnn_focalnet_tiny_{kernels}_3x").model.roi_head.bbox_head:
            assert (head.num_shared_convs, head.num_shared_fcs, head.norm_cfg.type) == (4, 1, "SyncBN")
            assert (head.loss_bbox.type, head.loss_bbox.loss_weight) == ("GIoULoss", 10.0)


def test_configs_open_with_the_published_results_and_a_command(name):
    opening = (CONFIGS / f"{name}.py").read_text().split('"""')[1]
    assert f"tools/dist_train.sh configs/mmdet/{name}.py 8 --amp" in opening
    assert f"FocalNet-{name.split('_')[-3][0].upper()} ({name.split('_')[-2]})" in opening
    if name in MASK_RCNN:
        result = MASK_RCNN[name]
        assert f"box AP {result['box_ap']}, mask AP {result['mask_ap']}" in opening
        assert f"{result['params_m']} M parameters, {result['gflops']} GFLOPs" in opening
    elif "lrf" in name:
        params, flops, ap = OTHERS[name].split("; ")[-1].split(", ")
        assert f"{ap}; {params} parameters, {flops}FLOPs" in opening
    else:
        assert " AP" not in opening


def test_the_page_s_table_has_the_published_numbers_and_our_parameters():
    rows = re.findall(r"\| `(\w+)\.py` \| (.+?) \|\n", read_page("docs/mmdetection.md"))
    assert {name for name, _ in rows} == {name for name in OTHERS if "lrf" in name}
    for name, numbers in rows:
        ap, published, ours, flops = numbers.split(" | ")
        assert OTHERS[name].endswith(f" {published} M, {flops} G, box AP {ap}")
        assert ours == f"{sum(p.numel() for p in build(name).parameters()) / 1e6:.2f}"


def release_checkpoint() -> dict[str, torch.Tensor]:
    """A checkpoint of the release's Mask R-CNN by its names and shapes, around the backbone of a reference vector."""
    tensors = {f"backbone.{k}": v for k, v in load_golden("downstream_srf")["state_dict"].items()}

    def add(name: str, *shape: int) -> None:
        tensors[f"{name}.weight"] = torch.rand(shape)
        tensors[f"{name}.bias"] = torch.rand(shape[0])

    for level, width in enumerate([4, 8, 16, 32]):
        add(f"neck.lateral_convs.{level}.conv", 256, width, 1, 1)
        add(f"neck.fpn_convs.{level}.conv", 256, 256, 3, 3)
    add("rpn_head.rpn_conv", 256, 256, 3, 3)
    add("rpn_head.rpn_cls", 3, 256, 1, 1)
    add("rpn_head.rpn_reg", 12, 256, 1, 1)
    add("roi_head.bbox_head.shared_fcs.0", 1024, 256 * 7 * 7)
    add("roi_head.bbox_head.shared_fcs.1", 1024, 1024)
    add("roi_head.bbox_head.fc_cls", 81, 1024)
    add("roi_head.bbox_head.fc_reg", 320, 1024)
    for i in range(4):
        add(f"roi_head.mask_head.convs.{i}.conv", 256, 256, 3, 3)
    add("roi_head.mask_head.upsample", 256, 256, 2, 2)
    add("roi_head.mask_head.conv_logits", 80, 256, 1, 1)
    return tensors


def test_a_checkpoint_of_the_release_loads_strictly():
    cfg = copy.deepcopy(load("mask_rcnn_focalnet_tiny_srf_1x").model)
    golden = load_golden("downstream_srf")
    cfg.backbone = {"type": "FocalNet", **golden["kwargs"]}
    cfg.neck.in_channels = [4, 8, 16, 32]
    detector = MODELS.build(cfg)

    detector.load_state_dict(release_checkpoint(), strict=True)

    features = detector.double().eval().backbone(golden["input"].double())
    for ours, theirs in zip(features, golden["features"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


TINY = """
_base_ = ["{config}"]
backbone = dict(variant=None, embed_dim=4, depths=[1, 1, 1, 1], init_cfg=None)
data = dict(data_root="{root}", metainfo=dict(classes=("ball", "tile", "cone", "star")))
training = dict(ann_file="coco/instances_training.json", data_prefix=dict(img="images/training"))
validation = dict(ann_file="coco/instances_validation.json", data_prefix=dict(img="images/validation"))
model = dict(backbone=backbone, neck=dict(in_channels={widths}))
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(**data, **training))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(**data, **validation))
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(ann_file="{root}/coco/instances_validation.json")
train_cfg = dict(max_epochs=1)
"""
IMAGES = {
    "train_dataloader.dataset.pipeline.3.transforms.0.0.scales": [(96, 96)],
    "train_dataloader.dataset.pipeline.3.transforms.1.0.scales": [(80, 80)],
    "train_dataloader.dataset.pipeline.3.transforms.1.1.crop_size": (32, 64),
    "train_dataloader.dataset.pipeline.3.transforms.1.2.scales": [(96, 96)],
    "val_dataloader.dataset.pipeline.1.scale": (96, 96),
    "default_hooks.checkpoint": {"interval": 2, "save_last": False},
}
PROPOSALS = {
    "model.train_cfg.rpn_proposal.max_per_img": 20,
    "model.test_cfg.rpn.max_per_img": 20,
    "model.test_cfg.rcnn.max_per_img": 10,
}
MASK_HEAD = {"model.roi_head.mask_head.conv_out_channels": 16, "model.roi_head.mask_head.num_classes": 4}
HEADS = {
    "mask_rcnn": {
        **PROPOSALS,
        **MASK_HEAD,
        "model.roi_head.bbox_head.fc_out_channels": 16,
        "model.roi_head.bbox_head.num_classes": 4,
    },
    "cascade_mask_rcnn": {
        **PROPOSALS,
        **MASK_HEAD,
        **{f"model.roi_head.bbox_head.{i}.{key}_out_channels": 16 for i in range(3) for key in ("conv", "fc")},
        **{f"model.roi_head.bbox_head.{i}.num_classes": 4 for i in range(3)},
        **{f"model.train_cfg.rcnn.{i}.sampler.num": 16 for i in range(3)},
    },
    "atss": {"model.bbox_head.num_classes": 4},
    "sparse_rcnn": {
        "model.rpn_head.num_proposals": 10,
        "model.test_cfg.rcnn.max_per_img": 10,
        **{f"model.roi_head.bbox_head.{i}.num_classes": 4 for i in range(6)},
    },
}


@pytest.mark.parametrize("detector", HEADS)
def test_a_small_model_trains_by_each_config(detector, sample_dataset, tmp_path):
    """An epoch of six images and validation after it, with the config's own pipeline, losses and optimizer."""
    config = tmp_path / f"tiny_{detector}.py"
    of_the_paper = CONFIGS / f"{detector}_focalnet_tiny_lrf_3x.py"
    widths = [8, 16, 32] if detector == "atss" else [4, 8, 16, 32]
    config.write_text(TINY.format(config=of_the_paper, root=sample_dataset, widths=widths))
    options = {"experiment_name": detector, **IMAGES, **HEADS[detector]}
    runner = build_training_runner(config, work_dir=str(tmp_path / "work"), options=options)
    runner.model.init_weights()
    before = copy.deepcopy(runner.model.backbone.state_dict())

    runner.train()

    assert (runner.epoch, runner.iter) == (1, 3)
    assert all(tensor.isfinite().all() for tensor in runner.model.state_dict().values())
    stem = "patch_embed.proj.weight"
    assert not torch.equal(runner.model.backbone.state_dict()[stem], before[stem])
