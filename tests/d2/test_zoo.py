"""Our configs by name, like those of detectron2's model zoo."""

from __future__ import annotations

import pytest
from detectron2.config import CfgNode
from omegaconf import DictConfig

from focalnet_backbone.configs import FOLDER
from focalnet_backbone.detectron2 import get_config, get_config_file
from focalnet_backbone.detectron2.jobs import load_yaml
from focalnet_backbone.detectron2.jobs.from_lazy import load_lazy

NAME = "mask_rcnn_focalnet_small_lrf_3x"


def test_a_yaml_is_a_cfg_node_with_our_keys():
    cfg = get_config(f"{NAME}.yaml")
    assert isinstance(cfg, CfgNode)
    assert cfg == load_yaml(FOLDER / "detectron2" / f"{NAME}.yaml")
    assert cfg.MODEL.FOCALNET.VARIANT == "focalnet_small_lrf"


def test_a_python_file_is_a_lazy_config():
    cfg = get_config(f"{NAME}.py")
    assert isinstance(cfg, DictConfig)
    assert cfg == load_lazy(FOLDER / "detectron2" / f"{NAME}.py")


def test_a_config_file_is_a_path_that_detectron2_takes():
    assert get_config_file(f"{NAME}.yaml") == get_config_file(f"detectron2/{NAME}.yaml")
    assert get_config_file(f"{NAME}.py").endswith(f"/{NAME}.py")


def test_a_wrong_name_is_answered_with_the_nearest():
    with pytest.raises(FileNotFoundError, match=f"no config '{NAME}.yml'. Did you mean .*'{NAME}.yaml'"):
        get_config(f"{NAME}.yml")
    with pytest.raises(ValueError, match=f"may be any of detectron2/{NAME}.py, detectron2/{NAME}.yaml"):
        get_config(NAME)
    with pytest.raises(FileNotFoundError, match=r"no config 'upernet_focalnet_sample.py'"):
        get_config_file("upernet_focalnet_sample.py")
