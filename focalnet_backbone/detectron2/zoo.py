"""The configs that this package carries for detectron2, by name, like detectron2's `model_zoo`."""

from __future__ import annotations

from detectron2.config import CfgNode, LazyConfig, get_cfg
from omegaconf import DictConfig

from focalnet_backbone.configs import find_config
from focalnet_backbone.detectron2.config import add_focalnet_config


def get_config_file(name: str) -> str:
    """The path of a config, such as `"mask_rcnn_focalnet_tiny_srf_1x.yaml"`; each is there as `.yaml` and as `.py`.

    Raises:
        FileNotFoundError: there is none of that name; the message has the nearest.
        ValueError: the name lacks its suffix, and there are both.
    """
    return str(find_config(name, "detectron2"))


def get_config(name: str) -> CfgNode | DictConfig:
    """A config by its name: a `CfgNode` with FocalNet's keys of a `.yaml`, a LazyConfig of a `.py`.

    Raises as `get_config_file` does.
    """
    path = get_config_file(name)
    if path.endswith(".py"):
        return LazyConfig.load(path)
    cfg = get_cfg()
    add_focalnet_config(cfg)
    cfg.merge_from_file(path)
    return cfg
