"""The backbone of a detector's or segmenter's config, with trained weights, for commands that look into backbones."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from focalnet_backbone.checkpoints import load_checkpoint
from focalnet_backbone.configs import is_mmengine, open_config
from focalnet_backbone.network.backbone import FocalNet
from focalnet_backbone.network.config import FocalNetConfig


def open_configured(config: str, weights: str | None) -> FocalNet:
    """The FocalNet that a config of detectron2 or mmengine describes, with maps of all stages.

    Args:
        config: a file, or the name of a config that this package carries.
        weights: a source for `load_checkpoint`, such as a checkpoint of the whole model; None for random weights.

    Raises:
        FileNotFoundError: there is no such config, or no such weights.
        ValueError: the config is wrong, or has no FocalNet in it.
        CheckpointError: the weights do not fit.
    """
    described = read_backbone_config(open_config(config))
    backbone = FocalNet(described.replace(out_features=described.stage_names[1:], out_indices=None))
    if weights:
        load_checkpoint(backbone, weights)
    return backbone.eval()


def read_backbone_config(path: Path) -> FocalNetConfig:
    """The architecture of the one FocalNet in a config's model. Raises `ValueError` if there is none, or several."""
    model = _build_of_mmengine(path) if is_mmengine(path) else _build_of_detectron2(path)
    found = [module for module in model.modules() if isinstance(module, FocalNet)]
    if len(found) != 1:
        raise ValueError(f"{path}: its model has {len(found)} FocalNets, where there must be one")
    return found[0].config


def _build_of_mmengine(path: Path) -> nn.Module:
    config = import_module("focalnet_backbone.openmmlab.runners").load_config(path)
    backbone = dict((config.get("model") or {}).get("backbone") or {})
    if str(backbone.pop("type", None)).rpartition(".")[-1] != "FocalNet":
        raise ValueError(f"{path}: model.backbone is no FocalNet")
    backbone.pop("init_cfg", None)
    with torch.device("meta"):
        return import_module("focalnet_backbone.openmmlab.backbone").FocalNet(**backbone)


def _build_of_detectron2(path: Path) -> nn.Module:
    on_cpu = ["train.device=cpu"] if path.suffix == ".py" else ["MODEL.DEVICE", "cpu"]
    job = import_module("focalnet_backbone.detectron2.jobs").load_job(path, on_cpu)
    return import_module("focalnet_backbone.detectron2.train").build_model(job)
