"""The configs of DINO and Mask2Former: their models, and the recipes that were published or inferred."""

from __future__ import annotations

import copy
import functools
import json
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import init_default_scope
from torch import nn

from focalnet_backbone.openmmlab.runners import load_config
from focalnet_backbone.openmmlab.training import check_channels
from tests.conftest import DATA, knobs_from_reference
from tests.openmmlab.conftest import ROOT

import mmdet.models  # noqa: F401  # isort: skip  (needs the plugin before)
import mmseg.models  # noqa: F401  # isort: skip
from mmengine.registry import MODELS  # isort: skip

FACTS = json.loads((DATA / "transformers_detectors.json").read_text())
RELEASE, DETREX, MASK2FORMER = FACTS["dino_release"], FACTS["dino_detrex"], FACTS["mask2former"]
DINO_PARAMETERS = FACTS["mmdet_3_dino"]["params_millions_measured_80_classes_neck_bias_on"]
LARGE = [
    f"{scales}_focalnet_large_{levels}" for scales, levels in (("4scale", "fl3"), ("4scale", "fl4"), ("5scale", "fl4"))
]
OF_DETREX = [
    *(f"dino-{model}_detrex_{epochs}e_coco" for model in LARGE for epochs in (12, 36)),
    *(f"dino-4scale_focalnet_{size}_lrf_12e_coco" for size in ("tiny", "small", "base")),
]
OF_THE_RELEASE = [
    *(f"dino-{model}_{epochs}e_coco" for model in LARGE for epochs in (12, 36)),
    *(f"dino-5scale_focalnet_{size}_fl{levels}_12e_coco" for size in ("xlarge", "huge") for levels in (3, 4)),
    "dino-5scale_focalnet_large_fl4_hres_12e_coco",
]
DINO = [*OF_THE_RELEASE, *OF_DETREX]
SIZES = ("tiny_lrf", "small_lrf", "base_lrf", "large_fl4")
PANOPTIC = [f"mask2former_focalnet_{size}_coco-panoptic" for size in SIZES]
INSTANCE = [f"mask2former_focalnet_{size}_coco" for size in SIZES]
SEMANTIC = [
    *(f"mask2former_focalnet_{size}_160k_ade20k_512x512" for size in SIZES[:2]),
    *(f"mask2former_focalnet_{size}_160k_ade20k_640x640" for size in SIZES[2:]),
]
OF_THE_SAMPLE = ("dino_focalnet_sample", "mask2former_focalnet_sample_panoptic", "mask2former_focalnet_sample")
ALL = [*DINO, *PANOPTIC, *INSTANCE, *SEMANTIC]
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


def path(name: str) -> Path:
    return ROOT / "configs" / ("mmseg" if name in (*SEMANTIC, OF_THE_SAMPLE[2]) else "mmdet") / f"{name}.py"


@functools.cache
def load(name: str) -> Config:
    return load_config(path(name))


def build(name: str) -> nn.Module:
    """The model of a config on the meta device, made once for all configs that have it in common."""
    cfg = load(name)
    init_default_scope(cfg.default_scope)
    return _build(cfg.default_scope, json.dumps(cfg.model, sort_keys=True))


@functools.cache
def _build(scope: str, model: str) -> nn.Module:
    with torch.device("meta"):
        return MODELS.build(ConfigDict(json.loads(model), _scope_=scope))


def knobs_of(name: str) -> dict:
    """What the facts say of a config's backbone."""
    if name.startswith("mask2former"):
        if "large" in name:
            proposed = MASK2FORMER["backbone_proposed"]
            return {**knobs_from_reference(proposed["knobs"]), "drop_path_rate": proposed["drop_path_rate"]}
        return {"focal_levels": [3, 3, 3, 3], "focal_windows": [3, 3, 3, 3], "drop_path_rate": 0.3}
    configs = DETREX["configs"]
    size = re.search(r"focalnet_(tiny|small|base|xlarge|huge|large)", name)[1]
    levels = re.search(r"_(fl\d|lrf)_", name)[1]
    if size in ("xlarge", "huge"):
        return {**knobs_from_reference(RELEASE[size][levels]), "drop_path_rate": 0.3}
    if size != "large":
        tiny = configs["dino_focal_tiny_lrf_fl3_4scale_12ep"]
        depths = [2, 2, 6, 2] if size == "tiny" else [2, 2, 18, 2]
        width = 128 if size == "base" else 96
        knobs = knobs_from_reference(tiny["backbone"])
        return {**knobs, "depths": depths, "embed_dim": width, "drop_path_rate": tiny["drop_path_rate"]}
    if name in OF_DETREX:
        fl4 = "_fl4" if levels == "fl4" else ""
        scales = re.search(r"\dscale", name)[0]
        documented = configs.get(f"dino_focalnet_large_lrf_384{fl4}_{scales}_{'36' if '36e' in name else '12'}ep")
        documented = documented or configs[f"dino_focalnet_large_lrf_384{fl4}_{scales}_12ep"]
        return {**knobs_from_reference(documented["backbone"]), "drop_path_rate": documented.get("drop_path_rate", 0.3)}
    of_release = RELEASE[f"dino_{'4scale' if levels == 'fl3' else '5scale'}_focalnet_large_{levels}"]
    return {**knobs_from_reference(of_release["backbone"]), "drop_path_rate": 0.3}


def test_there_is_a_config_for_each_set_up():
    found = {p.stem for host in ("mmdet", "mmseg") for p in (ROOT / "configs" / host).glob("*.py")}
    assert {name for name in found if name.startswith(("dino", "mask2former"))} == {*ALL, *OF_THE_SAMPLE}


@pytest.mark.parametrize("name", ALL)
def test_models_have_the_published_backbones_and_parameters(name):
    model, cfg = build(name), load(name)
    check_channels(cfg.model)
    expected = knobs_of(name)
    assert {knob: getattr(model.backbone.config, knob) for knob in expected} == expected
    assert (model.backbone.config.conv_embed_stem_padding, model.backbone.frozen_stages) == (2, -1)
    if "hres" not in name:
        assert cfg.model.backbone.init_cfg.checkpoint == re.search(r"focalnet_[a-z]+_[a-z]+\d?", name)[0]
    parameters = sum(p.numel() for p in model.parameters())
    assert f"{parameters / 1e6:.2f} M parameters" in " ".join(path(name).read_text().split())
    if name in DINO:
        scales, variant = re.match(r"dino-(\dscale)_focalnet_([a-z]+_[a-z]+\d?)", name).groups()
        published = DINO_PARAMETERS.get(f"{variant}_{scales}")
        assert published is None or round(parameters / 1e6, 3) == published
        exact = RELEASE.get(f"dino_{scales}_focalnet_{variant}", {}).get("params", {}).get("in_mmdetection_80_classes")
        assert exact in (None, parameters)
    elif "large" in name and name not in INSTANCE:
        key = "coco_panoptic_200_queries_fl4" if name in PANOPTIC else "ade20k_100_queries_fl4"
        measured = MASK2FORMER["backbone_proposed"]["params_millions_measured"][key]
        assert parameters / 1e6 == pytest.approx(measured, abs=6e-4)


def expected_group(name: str, parameter: str, module: nn.Module) -> tuple[float, float]:
    """Learning rate and weight decay that a recipe gives a parameter."""
    rate = 1e-5 if parameter.startswith("backbone.") else 1e-4
    if name in OF_THE_RELEASE:
        return rate, RELEASE["common"]["optimizer"]["weight_decay"]
    is_norm = isinstance(module, NORMS)
    if name in OF_DETREX:
        return rate, 0.0 if is_norm else DETREX["common"]["optimizer"]["weight_decay"]
    embeddings = MASK2FORMER["focalnet_weight_decay_keys"]["keys_with_lr_mult_1_and_decay_mult_0"]
    spared = is_norm or any(f".{key}." in parameter for key in embeddings)
    return rate, 0.0 if spared else MASK2FORMER["shared_recipe_of_the_original"]["optimizer"]["weight_decay"]


@pytest.mark.parametrize("name", [name for name in ALL if "36e" not in name and "hres" not in name])
def test_every_parameter_has_its_recipe_s_learning_rate_and_weight_decay(name):
    model = build(name)
    optimizer = copy.deepcopy(load(name).optim_wrapper)
    paramwise = optimizer.pop("paramwise_cfg")
    params: list[dict] = []
    # What mmengine makes the optimizer of.
    DefaultOptimWrapperConstructor(optimizer, paramwise).add_params(params, model)
    groups = {id(parameter): group for group in params for parameter in group["params"]}
    modules = dict(model.named_modules())
    wrong, spared = {}, set()
    for parameter, tensor in model.named_parameters():
        expected = expected_group(name, parameter, modules[parameter.rpartition(".")[0]])
        group = groups[id(tensor)]
        found = group.get("lr", optimizer.optimizer.lr), group.get("weight_decay", optimizer.optimizer.weight_decay)
        if found != pytest.approx(expected, rel=1e-9):
            wrong[parameter] = (found, expected)
        if expected[1] == 0 and parameter.startswith("backbone."):
            spared.add(parameter.rpartition(".")[0])
    assert not wrong
    depths, stages = model.backbone.config.depths, len(load(name).model.backbone.get("out_indices", range(4)))
    in_modulation = model.backbone.config.use_post_layernorm_in_modulation
    norms = 1 + (3 if model.backbone.config.embed_dim else 0) + stages + sum(depths) * (3 if in_modulation else 2)
    assert len(spared) == (0 if name in OF_THE_RELEASE else norms)
    assert optimizer.optimizer.type == "AdamW"
    assert optimizer.optimizer.get("betas", (0.9, 0.999)) == (0.9, 0.999)
    assert optimizer.clip_grad.max_norm == (0.01 if name.startswith("mask2former") else 0.1)


@pytest.mark.parametrize("name", [name for name in ALL if "36e" in name or "hres" in name])
def test_longer_and_larger_trainings_have_the_optimizer_of_the_others(name):
    shorter = re.sub("36e|hres_12e", "12e", name)
    assert load(name).optim_wrapper == load(shorter).optim_wrapper


@pytest.mark.parametrize("name", DINO)
def test_dino_s_settings_are_those_of_its_origin(name):
    cfg = load(name)
    model, common = cfg.model, (DETREX if name in OF_DETREX else RELEASE)["common"]
    scales = int(re.search(r"(\d)scale", name)[1])
    encoding = common["position_encoding"]
    assert (model.positional_encoding.temperature, model.positional_encoding.offset) == (
        encoding["temperature"],
        encoding["offset"],
    )
    assert model.positional_encoding.normalize
    assert model.dn_cfg.box_noise_scale == common["denoising"]["box_noise_scale"]
    assert model.dn_cfg.label_noise_scale == common["denoising"]["label_noise_ratio"]
    assert model.dn_cfg.group_cfg.num_dn_queries == common["denoising"]["dn_number"]
    assert model.neck.bias is True
    assert model.num_feature_levels == model.neck.num_outs == scales
    assert model.encoder.layer_cfg.self_attn_cfg.num_levels == scales
    assert model.decoder.layer_cfg.cross_attn_cfg.num_levels == scales
    assert list(model.backbone.out_indices) == ([1, 2, 3] if scales == 4 else [0, 1, 2, 3])
    assert model.backbone.with_cp == (name not in OF_DETREX)
    assert (model.num_queries, model.bbox_head.num_classes, model.test_cfg.max_per_img) == (900, 80, 300)

    (schedule,) = cfg.param_scheduler
    epochs = 36 if "36e" in name else 12
    drop = 11 if epochs == 12 else 30 if name in OF_DETREX else 33
    assert (cfg.train_cfg.max_epochs, schedule.end, schedule.milestones) == (epochs, epochs, [drop])
    assert cfg.train_dataloader.dataset.filter_cfg.filter_empty_gt == (name in OF_DETREX)
    resolution = RELEASE["high_resolution"] if "hres" in name else RELEASE["common"]["augmentation"]
    pipeline = cfg.train_dataloader.dataset.pipeline
    (whole,), (before, crop, after) = pipeline[3].transforms
    short, longest = (
        (resolution["branch_a_short_sides"], resolution["long_side_at_most"])
        if "hres" in name
        else (resolution["branch_a"]["resize_short_side_one_of"], resolution["branch_a"]["long_side_at_most"])
    )
    for resize in (whole, after):
        assert list(map(tuple, resize.scales)) == [(side, longest) for side in short]
    sides = "branch_b_first_resize" if "hres" in name else "first_resize_short_side_one_of"
    branch = resolution if "hres" in name else resolution["branch_b"]
    assert [side for side, _ in before.scales] == branch[sides]
    assert min(longest for _, longest in before.scales) >= 7 * max(branch[sides])
    key = "branch_b_crop" if "hres" in name else "crop_height_and_width_each_drawn_from"
    assert list(crop.crop_size) == branch[key]
    (test,) = (t for t in cfg.test_dataloader.dataset.pipeline if t.type == "Resize")
    assert tuple(test.scale) == ((2000, 1200) if "hres" in name else (1333, 800))


@pytest.mark.parametrize("name", [*PANOPTIC, *INSTANCE, *SEMANTIC])
def test_mask2former_trains_by_the_recipe_of_swin(name):
    cfg, large = load(name), "large" in name
    recipe = MASK2FORMER["ade20k_swin_l" if name in SEMANTIC else "coco_panoptic_swin_l"]["original"]
    head = cfg.model.decode_head if name in SEMANTIC else cfg.model.panoptic_head
    schedule = cfg.param_scheduler[0] if isinstance(cfg.param_scheduler, list) else cfg.param_scheduler
    assert cfg.train_cfg.max_iters == schedule.end
    if large:
        assert cfg.train_cfg.max_iters == recipe["iterations"]
        assert head.num_queries == recipe["queries"]
    if name in SEMANTIC:
        assert (schedule.type, schedule.power, cfg.train_cfg.max_iters) == ("PolyLR", 0.9, 160000)
        crop = next(t for t in cfg.train_dataloader.dataset.pipeline if t.type == "RandomCrop")
        resize = next(t for t in cfg.train_dataloader.dataset.pipeline if t.type == "RandomChoiceResize")
        side = 640 if name.endswith("640x640") else 512
        assert tuple(crop.crop_size) == tuple(cfg.model.data_preprocessor.size) == (side, side)
        assert resize.max_size == 4 * side
        if large:
            assert resize.scales == recipe["short_sides"]
        assert cfg.train_dataloader.batch_size * 8 == recipe["images_per_iteration"]
        return
    drops = recipe["lr_times_0.1_at"] if large else [327778, 355092]
    assert (schedule.milestones, schedule.gamma) == (drops, 0.1)
    assert cfg.train_dataloader.batch_size * (16 if large else 8) == recipe["images_per_iteration"]
    stuff = 0 if name in INSTANCE else 53
    assert (head.num_things_classes, head.num_stuff_classes) == (80, stuff)
    assert cfg.model.test_cfg.panoptic_on == (name in PANOPTIC)


@pytest.mark.parametrize("name", ALL)
def test_configs_open_with_a_command_and_what_was_published(name):
    opening = path(name).read_text().split('"""')[1]
    gpus = 16 if name in ("mask2former_focalnet_large_fl4_coco", "mask2former_focalnet_large_fl4_coco-panoptic") else 8
    assert f"tools/dist_train.sh {path(name).relative_to(ROOT)} {gpus}\n" in opening
    text = " ".join(opening.split())
    headline = FACTS["headline_results"]
    if name in OF_DETREX:
        key = name.replace("dino-", "").replace("_coco", "").replace("_detrex", "")
        scales, levels, epochs = re.match(r"(\dscale)_focalnet_\w+_(fl\d|lrf)_(\d+)e", key).groups()
        fl4 = "_fl4" if levels == "fl4" else ""
        published = DETREX["configs"].get(f"dino_focalnet_large_lrf_384{fl4}_{scales}_{epochs}ep", {})
        if "large" in name and published.get("box_ap"):
            assert f"box AP {published['box_ap']}" in text
            assert published["checkpoint"] in opening
        else:
            assert "Inferred" in text or "No AP" in text
    elif "5scale_focalnet_large" in name and "36e" not in name:
        assert f"box AP {headline['dino_large']['coco_val_box_ap']}" in text
        addresses = [checkpoint["url"].partition("/resolve")[0] for checkpoint in RELEASE["checkpoints"]]
        assert addresses[1] in text
    elif "huge" in name:
        assert f"box AP {headline['dino_huge']['coco_val_box_ap']}" in text
        assert f"{headline['dino_huge']['coco_test_dev_box_ap']} on test-dev" in text
    elif name == PANOPTIC[-1]:
        assert f"PQ {headline['mask2former_large']['coco_panoptic_pq']}" in text
    elif name == SEMANTIC[-1]:
        assert f"mIoU {headline['mask2former_large']['ade20k_miou']}" in text
    if name not in OF_DETREX and name not in (
        "dino-4scale_focalnet_large_fl3_12e_coco",
        "dino-5scale_focalnet_large_fl4_12e_coco",
    ):
        assert "Inferred" in text
