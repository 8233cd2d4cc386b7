"""FocalNet in mmengine's registry: what it computes, what it is told, where its weights come from."""

from __future__ import annotations

import focalnet_backbone.openmmlab  # isort: skip  (lets mmcv.ops be imported)
import mmdet.registry
import mmengine.registry
import mmseg.models
import mmseg.registry
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

import focalnet_backbone
from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.openmmlab import FocalNet
from tests.conftest import load_golden

SMALL = {"embed_dim": 8, "depths": [1, 1, 2, 1]}


@pytest.mark.parametrize("package", [mmengine, mmseg, mmdet])
def test_every_package_finds_it_by_its_type(package):
    with torch.device("meta"):
        model = package.registry.MODELS.build({"type": "FocalNet", "variant": "focalnet_tiny_lrf"})
    assert isinstance(model, FocalNet)
    assert model.config.focal_levels == [3, 3, 3, 3]


@pytest.mark.parametrize("indices", [None, (0, 1, 2, 3), (1, 3)])
def test_features_are_those_of_the_core_bit_for_bit(indices):
    stages = range(4) if indices is None else indices
    core = focalnet_backbone.FocalNet(**SMALL, out_indices=[index + 1 for index in stages]).eval()
    plugin = FocalNet(**SMALL, out_indices=indices).eval()
    plugin.load_state_dict(core.state_dict())
    x = torch.randn(2, 3, 65, 70)

    maps = plugin(x)

    assert isinstance(maps, tuple)
    for ours, theirs in zip(maps, core(x).values(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "name", ["downstream_srf", "downstream_lrf_odd_size", "downstream_windows_11_9_9_7_indices_1_2_3"]
)
def test_a_config_and_weights_of_the_release_give_its_features(name):
    golden = load_golden(name)
    model = mmseg.registry.MODELS.build({"type": "FocalNet", **golden["kwargs"]})
    model.load_state_dict(golden["state_dict"], strict=True)
    for ours, theirs in zip(model.double().eval()(golden["input"].double()), golden["features"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_arguments_of_the_release_work_and_one_warning_names_the_new_spelling():
    release = {
        "pretrain_img_size": 1600,
        "patch_norm": True,
        "in_chans": 4,
        "drop_rate": 0.1,
        "use_postln": True,
        "use_postln_in_modulation": True,
        "use_checkpoint": True,
        "pretrained": "weights.pth",
    }
    with pytest.warns(FutureWarning) as warnings:
        model = FocalNet(**SMALL, **release)

    assert len(warnings) == 1
    message = str(warnings[0].message)
    assert all(name in message for name in release)
    assert "in_chans is now num_channels" in message
    config = model.config
    assert (config.num_channels, config.hidden_dropout_prob) == (4, 0.1)
    assert config.use_post_layernorm
    assert config.use_post_layernorm_in_modulation
    assert model.layers[0].use_checkpoint
    assert model.init_cfg == {"type": "Pretrained", "checkpoint": "weights.pth"}


def test_arguments_of_today_do_not_warn(recwarn):
    FocalNet(**SMALL, with_cp=True, pretrained=None)
    assert not [warning for warning in recwarn if warning.category is FutureWarning]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"out_indices": (0, 4)}, ValueError, r"out_indices must be from 0 .* to 3, got \[0, 4\]"),
        ({"out_indices": (-1,)}, ValueError, "out_indices"),
        ({"out_features": ["stage1"]}, TypeError, "out_indices"),
        ({"patch_norm": False}, ValueError, "patch_norm must be True"),
        ({"embed_dims": 96}, TypeError, "Did you mean 'embed_dim'"),
        ({"variant": "focalnet_tiny"}, KeyError, "focalnet_tiny_srf"),
        ({"in_chans": 3, "num_channels": 3}, TypeError, "num_channels"),
        ({"frozen_stages": 5}, ValueError, "frozen_stages"),
    ],
)
def test_wrong_arguments_are_errors_that_name_them(arguments, error, message):
    with pytest.raises(error, match=message), torch.device("meta"):
        FocalNet(**arguments)


def test_frozen_stages_stay_fixed_in_training():
    model = FocalNet(**SMALL, frozen_stages=2, drop_path_rate=0.5).train()
    fixed = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert {name.split(".blocks")[0].split(".proj")[0].split(".norm")[0] for name in fixed} >= {
        "patch_embed",
        "layers.0",
        "layers.1",
    }
    assert not any(name.startswith(("layers.2", "layers.3", "norm2", "norm3")) for name in fixed)
    assert {"norm0.weight", "norm1.weight"} <= set(fixed)
    assert not model.layers[1].training
    assert model.layers[2].training


@pytest.mark.parametrize("name", ["adapt_srf_3_to_9", "adapt_srf_to_lrf", "adapt_lrf_to_11_9_9_7"])
@pytest.mark.parametrize("through_segmentor", [False, True])
def test_pretrained_weights_are_loaded_with_enlarged_kernels(name, through_segmentor, tmp_path):
    golden = load_golden(name)
    path = str(tmp_path / "pretrained.pth")
    torch.save({"model": golden["pretrained"]}, path)
    backbone = {"type": "FocalNet", **golden["kwargs"], "init_cfg": {"type": "Pretrained", "checkpoint": path}}
    if through_segmentor:
        head = {"type": "FCNHead", "in_channels": 32, "in_index": 3, "channels": 4, "num_classes": 2}
        segmentor = mmseg.registry.MODELS.build({"type": "EncoderDecoder", "backbone": backbone, "decode_head": head})
        segmentor.init_weights()
        model = segmentor.backbone
    else:
        model = mmseg.registry.MODELS.build(backbone)
        model.init_weights()

    weights = model.state_dict()
    for key, tensor in golden["adapted"].items():
        torch.testing.assert_close(weights[key], tensor)


def test_pretrained_weights_may_be_part_of_a_larger_file(tmp_path):
    source = FocalNet(**SMALL)
    path = tmp_path / "detector.pth"
    weights = {f"student.encoder.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"state_dict": {**weights, "student.head.weight": torch.zeros(1)}}, path)
    model = FocalNet(**SMALL, init_cfg={"type": "Pretrained", "checkpoint": str(path), "prefix": "student.encoder"})
    model.init_weights()
    for name, tensor in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


def test_other_initialisers_apply_before_pretrained_weights(tmp_path):
    path = tmp_path / "backbone.pth"
    source = FocalNet(**SMALL, out_indices=(3,))
    torch.save(source.state_dict(), path)
    model = FocalNet(
        **SMALL,
        init_cfg=[
            {"type": "Pretrained", "checkpoint": str(path)},
            {"type": "Constant", "layer": "LayerNorm", "val": 7.0},
        ],
    )
    model.init_weights()
    # norm0 is not in the file; patch_embed.norm is.
    assert (model.norm0.weight == 7).all()
    assert torch.equal(model.patch_embed.norm.weight, source.patch_embed.norm.weight)


def test_pretrained_weights_that_do_not_fit_are_an_error(tmp_path):
    path = tmp_path / "other.pth"
    torch.save(FocalNet(embed_dim=4, depths=[1, 1, 1, 1]).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"other\.pth"):
        FocalNet(**SMALL, init_cfg={"type": "Pretrained", "checkpoint": str(path)}).init_weights()


class Segmentor(nn.Module):
    """A model as optimizer constructors see it."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.decode_head = nn.Conv2d(64, 2, 1)


def test_layer_depth_rises_along_the_network():
    model = FocalNet(**SMALL)
    order = [
        "patch_embed.proj.weight",
        "layers.0.blocks.0.norm1.weight",
        "layers.1.blocks.0.mlp.fc1.weight",
        "layers.2.blocks.0.modulation.f.weight",
        "layers.2.blocks.1.modulation.f.weight",
        "layers.3.blocks.0.modulation.f.weight",
    ]
    assert [model.get_layer_depth(f"backbone.{name}", "backbone.") for name in order] == [(i, 7) for i in range(6)]
    assert model.get_layer_depth("layers.2.downsample.proj.weight")[0] == 4
    assert model.get_layer_depth("norm2.bias")[0] == 4
    assert model.get_layer_depth("decode_head.weight", "backbone.") == (6, 7)


def test_learning_rates_decay_with_depth_and_norms_are_not_decayed():
    model = Segmentor(FocalNet(**SMALL, frozen_stages=0))
    wrapper = build_optim_wrapper(
        model,
        {
            "type": "OptimWrapper",
            "constructor": "LayerDecayOptimWrapperConstructor",
            "optimizer": {"type": "AdamW", "lr": 1.0, "weight_decay": 0.05},
            "paramwise_cfg": {
                "decay_rate": 0.5,
                "custom_keys": {"norm": {"decay_mult": 0.0}, "decode_head": {"lr_mult": 10}},
            },
        },
    )
    groups = {id(group["params"][0]): group for group in wrapper.param_groups}
    named = {name: groups[id(p)] for name, p in model.named_parameters() if p.requires_grad}
    assert named["decode_head.weight"]["lr"] == 10
    assert named["backbone.layers.3.blocks.0.mlp.fc1.weight"]["lr"] == 0.5
    assert named["backbone.layers.0.blocks.0.mlp.fc1.weight"]["lr"] == 0.5**5
    assert named["backbone.norm0.weight"]["weight_decay"] == 0
    assert named["backbone.layers.0.blocks.0.mlp.fc1.weight"]["weight_decay"] == 0.05


def test_layer_decay_needs_a_backbone_that_knows_its_depths():
    cfg = {
        "type": "OptimWrapper",
        "constructor": "LayerDecayOptimWrapperConstructor",
        "optimizer": {"type": "SGD", "lr": 1.0},
        "paramwise_cfg": {"decay_rate": 0.5},
    }
    with pytest.raises(TypeError, match="get_layer_depth"):
        build_optim_wrapper(Segmentor(nn.Conv2d(3, 64, 1)), cfg)


@pytest.mark.parametrize("out_indices", [3, "0123", 1.5])
def test_out_indices_that_are_no_list_are_refused_by_name(out_indices):
    with pytest.raises(TypeError, match="out_indices must be a list of stages, from 0 to 3, got"):
        FocalNet(embed_dim=8, depths=[1, 1, 1, 1], out_indices=out_indices)
