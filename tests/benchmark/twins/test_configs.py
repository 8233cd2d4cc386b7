"""The twins' configs: FocalNet's recipes with the backbones of others, of the published sizes."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn

from focalnet_backbone.configs import FOLDER, describe_config, list_configs
from focalnet_backbone.detectron2.jobs import Job, load_job
from focalnet_backbone.openmmlab.runners import load_config

import mmdet.models  # isort: skip  (needs the plugin before)
import mmseg.models  # isort: skip

REGISTRIES = {"mmdet": mmdet.registry.MODELS, "mmseg": mmseg.registry.MODELS}
TWINS = [name for name in list_configs() if "focalnet" not in name]
COMPARED = [name for name in TWINS if not name.endswith("3x.py") or "_base" in name]
"""Those whose content is compared: of the 3x schedule one a family."""
MASK_RCNN = {
    "swin_tiny": 47.8,
    "swin_small": 69.1,
    "swin_base": 107.1,
    "convnext_tiny": 48,
    "convnext_base": 108,
    "resnet_50": 44.2,
    "resnet_101": 63.2,
}
"""Published parameters in millions, of arXiv 2203.11926's table and, of ConvNeXt, its authors'."""
UPERNET = {
    "swin_tiny": 60,
    "swin_small": 81,
    "swin_base": 121,
    "convnext_tiny": 60,
    "convnext_small": 82,
    "convnext_base": 122,
    "resnet_50": 66,
    "resnet_101": 86,
}
SIZES = {"tiny": "tiny", "small": "small", "base": "base", "50": "tiny", "101": "small"}


def split(name: str) -> tuple[str, str, str]:
    """Host, backbone and schedule of a twin's config."""
    host, file = name.split("/")
    backbone, schedule = re.fullmatch(r"(?:mask_rcnn|upernet)_(\w+?)_(1x|3x|160k\w+)\.py", file).groups()
    return host, backbone, schedule


@contextmanager
def on_meta() -> Iterator[None]:
    """Modules have shapes but no numbers; the rates of stochastic depth, which the hosts read off a tensor, do."""
    with torch.device("meta"), mock.patch("torch.linspace", functools.partial(torch.linspace, device="cpu")):
        yield


@functools.cache
def load(name: str) -> Config:
    return load_config(FOLDER / name)


def job(name: str) -> Job:
    return load_job(FOLDER / name, ["train.device=meta"])


@functools.cache
def build(name: str) -> nn.Module:
    host = name.split("/")[0]
    with on_meta():
        if host == "detectron2":
            return job(name).model()
        with DefaultScope.overwrite_default_scope(host):
            return REGISTRIES[host].build(copy.deepcopy(load(name).model))


def millions(module: nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def test_each_backbone_has_every_recipe():
    backbones = {split(name)[1] for name in TWINS}
    families = {f"{family}_{size}" for family in ("swin", "convnext", "focal_transformer") for size in SIZES}
    families = {name for name in families if not name.endswith(("50", "101"))}
    assert backbones == {*families, "resnet_50", "resnet_101", "vit_base"}
    everywhere = backbones - {"vit_base"}
    for host, schedules in {
        "mmdet": ("1x", "3x"),
        "detectron2": ("1x", "3x"),
        "mmseg": ("160k_ade20k_512x512",),
    }.items():
        for schedule in schedules:
            found = {backbone for *rest, backbone, s in map(split, TWINS) if (*rest, s) == (host, schedule)}
            assert found == (backbones if host == "detectron2" else everywhere)


@pytest.mark.parametrize("name", [name for name in TWINS if not name.endswith("3x.py")])
def test_twins_have_the_published_parameters(name):
    host, backbone, _ = split(name)
    parameters = millions(build(name))
    published = (UPERNET if host == "mmseg" else MASK_RCNN).get(backbone)
    if host == "mmseg" and published:
        assert parameters == pytest.approx(published, abs=0.6)
    elif published:
        # Of the ResNets the table has 0.1 to 0.2 less than both hosts.
        assert parameters == pytest.approx(published, abs=0.2 if backbone.startswith("resnet") else 0.1)
    assert parameters < 130


@pytest.mark.parametrize("name", [name for name in COMPARED if not name.startswith("detectron2")])
def test_mmengine_configs_differ_from_focalnets_in_the_backbone_alone(name):
    host, backbone, schedule = split(name)
    size = SIZES[backbone.rpartition("_")[2]]
    method = "upernet" if host == "mmseg" else "mask_rcnn"
    ours = load(f"{host}/{method}_focalnet_{size}_lrf_{schedule}.py").to_dict()
    twin = load(name).to_dict()
    focalnet, other = (cfg["model"].pop("backbone") for cfg in (ours, twin))
    if other["type"] != "ResNet":
        assert other["drop_path_rate"] == focalnet["drop_path_rate"]
    assert other.get("init_cfg") or other["type"] == "FocalTransformer"
    decay = twin["optim_wrapper"].pop("paramwise_cfg")
    assert decay["norm_decay_mult"] == 0.0
    assert decay["custom_keys"].items() >= ours["optim_wrapper"].pop("paramwise_cfg")["custom_keys"].items()
    for part in ("neck", "decode_head", "auxiliary_head"):
        for cfg in (ours, twin):
            cfg["model"].get(part, {}).pop("in_channels", None)
    compared = ("model", "optim_wrapper", "param_scheduler", "train_cfg", "train_dataloader", "test_dataloader")
    assert {key: twin[key] for key in compared} == {key: ours[key] for key in compared}


@pytest.mark.parametrize("name", [name for name in COMPARED if name.startswith("detectron2")])
def test_lazy_configs_differ_from_focalnets_in_the_backbone_alone(name):
    _, backbone, schedule = split(name)
    ours = job(f"detectron2/mask_rcnn_focalnet_{SIZES[backbone.rpartition('_')[2]]}_lrf_{schedule}.py")
    twin = job(name)
    assert twin.output_dir == f"outputs/mask_rcnn_{backbone}_{schedule}"
    assert twin.cfg.optimizer.params.pop("overrides").keys() == {"relative_position_bias_table", "pos_embed"}
    for cfg in (ours.cfg, twin.cfg):
        for key in ("output_dir", "init_checkpoint"):
            cfg.train.pop(key)
        cfg.model.pop("backbone")
    assert twin.cfg == ours.cfg


@pytest.mark.parametrize("name", [name for name in TWINS if "_1x" in name and "_tiny" in name])
def test_norms_and_position_biases_do_not_decay(name):
    host, *_ = split(name)
    model = build(name)
    if host == "detectron2":
        optimizer = job(name).optimizer(model)
    else:
        optimizer = build_optim_wrapper(model, load(name).optim_wrapper).optimizer
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    norms = {id(p) for module in model.modules() if isinstance(module, nn.LayerNorm) for p in module.parameters()}
    biases = {id(p) for n, p in model.named_parameters() if n.endswith("relative_position_bias_table")}
    assert {decay[p] for p in norms | biases} == {0.0}
    assert {value for p, value in decay.items() if p not in norms | biases} <= {0.0, 0.05}
    assert sum(value == 0.05 for value in decay.values()) > 100


@pytest.mark.parametrize("name", TWINS)
def test_a_config_opens_with_what_it_is_and_its_command(name):
    host, backbone, schedule = split(name)
    opening = (FOLDER / name).read_text().split('"""')[1]
    assert f"configs/{name}" in opening
    assert "a twin of FocalNet-" in describe_config(FOLDER / name)
    epochs = {"1x": "1x schedule (12 epochs)", "3x": "3x schedule (36 epochs)"}
    assert epochs.get(schedule, "160k iterations") in opening
    assert "Published" in opening or "No results are published." in opening
    published = (UPERNET if host == "mmseg" else MASK_RCNN).get(backbone)
    if published and "Published" in opening:
        assert re.search(rf"\b{published} M parameters", opening)
