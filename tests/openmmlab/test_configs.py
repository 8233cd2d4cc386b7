"""The UPerNet configs: the paper's recipe, its model sizes, and the release's checkpoints."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model.utils import revert_sync_batchnorm

from focalnet_backbone.analysis import count
from focalnet_backbone.openmmlab.runners import load_config
from tests.conftest import DATA, load_golden

import mmseg.models  # noqa: F401  # isort: skip  (needs the plugin before)
from mmseg.registry import MODELS  # isort: skip

CONFIGS = Path(__file__).parents[2] / "configs" / "mmseg"
DOWNSTREAM = json.loads((DATA / "downstream.json").read_text())
RECIPE = DOWNSTREAM["upernet_training"]
MODELS_OF_THE_PAPER = sorted(RECIPE["params_and_gmacs_measured_with_fvcore"])


@functools.cache
def load(model: str) -> Config:
    return load_config(CONFIGS / f"upernet_focalnet_{model}_160k_ade20k_512x512.py")


@pytest.mark.parametrize("model", MODELS_OF_THE_PAPER)
def test_models_have_the_published_parameters_and_multiply_accumulates(model):
    cfg = copy.deepcopy(load(model).model)
    with torch.device("meta"):
        segmentor = revert_sync_batchnorm(MODELS.build(cfg))
    segmentor.forward = segmentor._forward  # Backbone and decode head, as the release counts.
    params, gmacs = RECIPE["params_and_gmacs_measured_with_fvcore"][model]

    counted_params, macs = count(segmentor, torch.zeros(1, 3, 64, 64))

    assert round(counted_params / 1e6, 2) == params
    # All work is in proportion to the image, except on the maps that are pooled to 1, 2, 3 and 6 squared.
    on_pooled = sum(scale**2 for scale in (1, 2, 3, 6)) * cfg.decode_head.in_channels[-1] * 512
    at_512x2048 = (macs - on_pooled) * (512 * 2048) / 64**2 + on_pooled
    assert at_512x2048 / 1e9 == pytest.approx(gmacs, rel=1e-4)


@pytest.mark.parametrize("model", MODELS_OF_THE_PAPER)
def test_configs_are_the_paper_s_recipe(model):
    cfg = load(model)
    size, kernels = model.split("_")

    with torch.device("meta"):
        backbone = MODELS.build(cfg.model.backbone)
    expected = DOWNSTREAM["backbones"][f"upernet_focalnet_{size}_512x512_160k_ade20k_{kernels}"]
    assert {knob: getattr(backbone.config, knob) for knob in expected} == expected
    assert cfg.model.backbone.init_cfg.checkpoint == f"focalnet_{model}"

    head, auxiliary = cfg.model.decode_head, cfg.model.auxiliary_head
    assert (head.type, head.channels, head.pool_scales, head.dropout_ratio) == ("UPerHead", 512, (1, 2, 3, 6), 0.1)
    assert (auxiliary.type, auxiliary.in_index, auxiliary.channels) == ("FCNHead", 2, 256)
    assert auxiliary.loss_decode.loss_weight == 0.4
    assert head.norm_cfg.type == auxiliary.norm_cfg.type == "SyncBN"
    assert head.in_channels == list(backbone.channels.values())

    assert cfg.train_cfg.max_iters == RECIPE["iterations"]
    assert cfg.train_dataloader.batch_size * 8 == RECIPE["images_per_iteration"]
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.betas) == ("AdamW", 6e-5, (0.9, 0.999))
    assert optimizer.weight_decay == 0.01
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys == {"norm": {"decay_mult": 0.0}}
    warmup, decay = cfg.param_scheduler
    assert (warmup.type, warmup.start_factor, warmup.end) == ("LinearLR", 1e-6, 1500)
    assert (decay.type, decay.power, decay.eta_min, decay.end) == ("PolyLR", 1.0, 0.0, 160000)
    train = {transform.type: transform for transform in cfg.train_dataloader.dataset.pipeline}
    assert train["RandomResize"].scale == (2048, 512)
    assert train["RandomResize"].ratio_range == (0.5, 2.0)
    assert (train["RandomCrop"].crop_size, train["RandomCrop"].cat_max_ratio) == ((512, 512), 0.75)
    assert train["RandomFlip"].prob == 0.5
    assert "PhotoMetricDistortion" in train
    assert cfg.model.test_cfg.mode == "whole"
    scales, flips, *_ = cfg.tta_pipeline[-1].transforms
    assert [scale.scale[1] / 512 for scale in scales] == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
    assert [flip.prob for flip in flips] == [0.0, 1.0]


@pytest.mark.parametrize("model", MODELS_OF_THE_PAPER)
def test_configs_open_with_the_published_results(model):
    cfg = load(model)
    opening = Path(cfg.filename).read_text().split('"""')[1]
    size, kernels = model.split("_")
    result = next(r for r in RECIPE["results"] if (r["size"], r["kernels"]) == (size, kernels))
    params, gmacs = RECIPE["params_and_gmacs_measured_with_fvcore"][model]
    for number in (result["miou"], result["miou_ms_flip"], params, gmacs):
        assert str(number) in opening
    assert f"configs/mmseg/{Path(cfg.filename).name}" in opening


def release_checkpoint() -> dict[str, torch.Tensor]:
    """A checkpoint of the release's UPerNet by its names and shapes, around the backbone of a reference vector."""
    tensors = {f"backbone.{k}": v for k, v in load_golden("downstream_srf")["state_dict"].items()}
    widths, channels, classes = [4, 8, 16, 32], 512, 150

    def add(name: str, *shape: int) -> None:
        tensors[name] = torch.rand(shape)

    def add_conv_module(name: str, inputs: int, outputs: int, kernel: int) -> None:
        add(f"{name}.conv.weight", outputs, inputs, kernel, kernel)
        for key in ("weight", "bias", "running_mean", "running_var"):
            add(f"{name}.bn.{key}", outputs)
        tensors[f"{name}.bn.num_batches_tracked"] = torch.tensor(160000)

    def add_classifier(name: str, inputs: int) -> None:
        add(f"{name}.conv_seg.weight", classes, inputs, 1, 1)
        add(f"{name}.conv_seg.bias", classes)

    for scale in range(4):
        add_conv_module(f"decode_head.psp_modules.{scale}.1", widths[3], channels, 1)
    add_conv_module("decode_head.bottleneck", widths[3] + 4 * channels, channels, 3)
    for level in range(3):
        add_conv_module(f"decode_head.lateral_convs.{level}", widths[level], channels, 1)
        add_conv_module(f"decode_head.fpn_convs.{level}", channels, channels, 3)
    add_conv_module("decode_head.fpn_bottleneck", 4 * channels, channels, 3)
    add_classifier("decode_head", channels)
    add_conv_module("auxiliary_head.convs.0", widths[2], 256, 3)
    add_classifier("auxiliary_head", 256)
    return tensors


@pytest.mark.parametrize("norm", ["SyncBN", "BN"])
def test_a_checkpoint_of_the_release_loads_strictly(norm):
    cfg = copy.deepcopy(load("tiny_srf").model)
    golden = load_golden("downstream_srf")
    cfg.backbone = {"type": "FocalNet", **golden["kwargs"]}
    cfg.decode_head.update(in_channels=[4, 8, 16, 32], norm_cfg={"type": norm})
    cfg.auxiliary_head.update(in_channels=16, norm_cfg={"type": norm})
    segmentor = MODELS.build(cfg)

    segmentor.load_state_dict(release_checkpoint(), strict=True)

    features = segmentor.double().eval().extract_feat(golden["input"].double())
    for ours, theirs in zip(features, golden["features"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
