"""mmengine, mmsegmentation and mmdetection find our configs and models by name."""

from __future__ import annotations

import focalnet_backbone.openmmlab  # noqa: F401  # isort: skip  (lets mmcv.ops be imported)
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS, init_default_scope
from mmseg.apis import MMSegInferencer

from focalnet_backbone.configs import FOLDER, find_config, list_configs
from focalnet_backbone.openmmlab.runners import load_config
from tests.conftest import DATA

PUBLISHED = json.loads((DATA / "downstream.json").read_text())
UPERNET = "mmseg/upernet_focalnet_tiny_lrf_160k_ade20k_512x512.py"
MASK_RCNN = "mmdet/mask_rcnn_focalnet_small_srf_1x.py"


def models_of(host: str) -> dict[str, dict]:
    """What a host's metafile says of each model."""
    return {model["Name"]: model for model in yaml.safe_load((FOLDER / host / "metafile.yaml").read_text())["Models"]}


@pytest.mark.parametrize("name", [UPERNET, MASK_RCNN])
def test_a_config_is_read_by_name_and_is_that_of_its_file(name):
    expected = load_config(FOLDER / name).to_dict()
    assert Config.fromfile(f"focalnet_backbone::{name}").to_dict() == expected
    assert get_config(f"focalnet_backbone::{name}").to_dict() == expected


@pytest.mark.parametrize("name", [UPERNET, MASK_RCNN, "mmdet/_base_/mask_rcnn_focalnet_1x.py"])
def test_a_config_may_be_a_base_in_anyones_folder(name, tmp_path):
    own = tmp_path / "own.py"
    own.write_text(f'_base_ = ["focalnet_backbone::{name}"]\nmodel = dict(backbone=dict(frozen_stages=1))\n')
    cfg, base = Config.fromfile(own), Config.fromfile(FOLDER / name)
    assert cfg.model.backbone.pop("frozen_stages") == 1
    assert cfg.to_dict() == base.to_dict()  # Also without a scope of ours, in which nothing would be found.


def test_packages_of_openmmlab_are_found_as_before(tmp_path):
    own = tmp_path / "own.py"
    own.write_text('_base_ = ["mmdet::atss/atss_r50_fpn_1x_coco.py"]\n')
    assert Config.fromfile(own).model.type == "ATSS"
    assert get_config("mmdet::atss/atss_r50_fpn_1x_coco.py").model.type == "ATSS"
    with pytest.raises(FileNotFoundError, match=r"no config 'mmseg/upernet.py'"):
        Config.fromfile("focalnet_backbone::mmseg/upernet.py")


def test_metafiles_name_configs_by_their_files():
    for host in ("mmseg", "mmdet"):
        for name, model in models_of(host).items():
            assert model["Config"] == f"configs/{host}/{name}.py"
            assert find_config(name, host).is_file()


def test_metafiles_have_the_published_results():
    models = models_of("mmseg")
    for result in PUBLISHED["upernet_training"]["results"]:
        model = models[f"upernet_focalnet_{result['size']}_{result['kernels']}_160k_ade20k_512x512"]
        assert model["Results"][0]["Metrics"] == {"mIoU": result["miou"], "mIoU(ms+flip)": result["miou_ms_flip"]}
        assert f"focalnet_{result['size']}_{result['kernels']}_upernet" in model["Weights"]
    models = models_of("mmdet")
    for result in PUBLISHED["mask_rcnn_training"]["results"]:
        model = models[f"mask_rcnn_focalnet_{result['size']}_{result['kernels']}_{result['schedule']}"]
        metrics = {key: value for part in model["Results"] for key, value in part["Metrics"].items()}
        assert metrics == {"box AP": result["box_ap"], "mask AP": result["mask_ap"]}
        assert f"focalnet_{result['size']}_{result['kernels']}_maskrcnn_{result['schedule']}" in model["Weights"]


def test_get_config_knows_the_published_weights():
    assert get_config(f"focalnet_backbone::{MASK_RCNN}", pretrained=True).model_path.endswith(
        "/detection/focalnet_small_srf_maskrcnn_1x.pth"
    )


@pytest.mark.parametrize(
    ("inferencer", "name"), [(MMSegInferencer, "upernet_focalnet_sample"), (DetInferencer, "mask_rcnn_focalnet_sample")]
)
def test_inferencers_take_a_models_name(inferencer, name, tmp_path):
    path = find_config(name, "mm*")
    init_default_scope(path.parent.name)
    model = MODELS.build(Config.fromfile(path).model)
    torch.save({"state_dict": model.state_dict(), "meta": {}}, tmp_path / "weights.pth")
    listed = inferencer.list_models(path.parent.name, ".*_focalnet_")
    setups = [Path(setup).stem for setup in list_configs(path.parent.name)]
    assert listed == [setup for setup in setups if "_focalnet_" in setup]

    built = inferencer(name, weights=str(tmp_path / "weights.pth"), device="cpu")
    assert type(built.model.backbone).__name__ == "FocalNet"
    for key, tensor in built.model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[key])
    assert "predictions" in built(np.zeros((32, 32, 3), np.uint8))
