"""The backbone in detectron2's registry, and in every meta-architecture that takes one."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone, build_backbone, build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from focalnet_backbone import FocalNet, FocalNetConfig
from focalnet_backbone.analysis import count
from focalnet_backbone.detectron2 import FocalNetBackbone, add_focalnet_config
from tests.conftest import knobs_from_reference, load_golden

TINY = {"embed_dim": 4, "depths": [1, 1, 1, 1], "focal_windows": [3, 3, 3, 3]}


@pytest.fixture
def cfg() -> CfgNode:
    cfg = get_cfg()
    add_focalnet_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "build_focalnet_backbone"
    cfg.MODEL.FOCALNET.merge_from_other_cfg(CfgNode({k.upper(): v for k, v in TINY.items()}))
    return cfg


def test_adding_the_config_twice_changes_nothing(cfg):
    cfg.MODEL.FOCALNET.VARIANT = "focalnet_tiny_lrf"
    before = cfg.dump()
    add_focalnet_config(cfg)
    assert cfg.dump() == before


def test_the_registry_builds_what_the_config_names(cfg):
    backbone = build_backbone(cfg)
    assert isinstance(backbone, FocalNetBackbone)
    assert isinstance(backbone, Backbone)
    assert backbone.output_shape() == {
        "stage1": ShapeSpec(channels=4, stride=4),
        "stage2": ShapeSpec(channels=8, stride=8),
        "stage3": ShapeSpec(channels=16, stride=16),
        "stage4": ShapeSpec(channels=32, stride=32),
    }
    features = backbone(torch.zeros(2, 3, 64, 96))
    for name, shape in backbone.output_shape().items():
        assert features[name].shape == (2, shape.channels, 64 // shape.stride, 96 // shape.stride)


@pytest.mark.parametrize(("features", "divisor"), [(["stage1", "stage2"], 8), (["stem", "stage4"], 32)])
def test_only_the_features_asked_for_come_out_and_bound_the_padding(cfg, features, divisor):
    cfg.MODEL.FOCALNET.OUT_FEATURES = features
    backbone = build_backbone(cfg)
    assert list(backbone(torch.zeros(1, 3, 32, 32))) == list(backbone.output_shape()) == features
    assert backbone.size_divisibility == divisor
    assert backbone.padding_constraints == {"size_divisibility": divisor}


RES = ["res2", "res3", "res4", "res5"]
STAGES = ["stage1", "stage2", "stage3", "stage4"]


@pytest.mark.parametrize("names", [RES, ["stage1", "res5"], ["stem", "res4"], ("res5", "res3")])
def test_res2_to_res5_are_other_names_of_the_stages_and_maps_have_the_names_asked_for(cfg, names):
    cfg.MODEL.FOCALNET.OUT_FEATURES = names
    backbone = build_backbone(cfg).eval()
    own = FocalNetBackbone(**TINY, out_features=[dict(zip(RES, STAGES, strict=True)).get(n, n) for n in names]).eval()
    own.load_state_dict(backbone.state_dict(), strict=True)
    assert set(backbone.out_features) == set(names)
    assert backbone.size_divisibility == own.size_divisibility
    features = backbone(torch.ones(1, 3, 64, 64))
    assert list(features) == list(backbone.output_shape()) == backbone.out_features
    assert list(backbone.output_shape().values()) == list(own.output_shape().values())
    for feature, expected in zip(features.values(), own(torch.ones(1, 3, 64, 64)).values(), strict=True):
        assert torch.equal(feature, expected)


@pytest.mark.parametrize("builder", ["build_focalnet_fpn_backbone", "build_retinanet_focalnet_fpn_backbone"])
@pytest.mark.parametrize(("given", "wanted"), [(RES, RES), (STAGES, RES), (RES, STAGES)])
def test_a_pyramid_takes_either_name_of_a_map(cfg, builder, given, wanted):
    cfg.MODEL.FOCALNET.OUT_FEATURES, cfg.MODEL.FPN.IN_FEATURES = given, wanted[1:]
    cfg.MODEL.FPN.OUT_CHANNELS = 8
    pyramid = BACKBONE_REGISTRY.get(builder)(cfg, ShapeSpec(channels=3))
    assert list(pyramid(torch.zeros(1, 3, 128, 128)))[:3] == ["p3", "p4", "p5"]
    assert pyramid.size_divisibility == 32


def test_a_config_of_another_project_that_knows_no_focalnet_gets_the_maps_of_its_resnet():
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_focalnet_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = RES
    cfg.freeze()
    with torch.device("meta"):
        backbone = BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME)(cfg, ShapeSpec(channels=3))
    assert list(backbone.output_shape()) == RES
    assert backbone.channels["res5"] == 768
    assert "FOCALNET" not in cfg.MODEL


def test_keys_of_another_project_keep_their_values():
    cfg = get_cfg()
    cfg.SOLVER.OPTIMIZER = "ADAMW"
    add_focalnet_config(cfg)
    assert cfg.SOLVER.OPTIMIZER == "ADAMW"


def test_a_backbone_starts_from_the_weights_that_its_section_names(cfg, tmp_path):
    expected = FocalNetBackbone(**TINY).state_dict()
    torch.save(expected, tmp_path / "weights.pth")
    cfg.MODEL.FOCALNET.WEIGHTS = str(tmp_path / "weights.pth")
    for name, tensor in build_backbone(cfg).state_dict().items():
        assert torch.equal(tensor, expected[name])


def test_every_architecture_knob_reaches_the_backbone(cfg):
    knobs = {
        "image_size": 64,
        "patch_size": 4,
        "num_channels": 3,
        "embed_dim": 8,
        "use_conv_embed": True,
        "depths": [1, 2],
        "focal_levels": [1, 2],
        "focal_windows": [5, 3],
        "hidden_act": "relu",
        "mlp_ratio": 2.0,
        "hidden_dropout_prob": 0.1,
        "drop_path_rate": 0.4,
        "use_layerscale": True,
        "layerscale_value": 0.5,
        "use_post_layernorm": True,
        "use_post_layernorm_in_modulation": True,
        "normalize_modulator": True,
        "initializer_range": 0.1,
        "layer_norm_eps": 1e-4,
        "encoder_stride": 8,
        "conv_embed_stem_padding": 3,
    }
    own = {"VARIANT", "OUT_FEATURES", "FREEZE_AT", "USE_CHECKPOINT", "WEIGHTS"}
    assert set(cfg.MODEL.FOCALNET) - own == {name.upper() for name in knobs}
    for name, value in knobs.items():
        cfg.MODEL.FOCALNET[name.upper()] = value
    cfg.MODEL.FOCALNET.OUT_FEATURES = ["stage2"]
    cfg.MODEL.FOCALNET.USE_CHECKPOINT = True
    backbone = build_backbone(cfg)
    assert backbone.config == FocalNetConfig(**knobs, out_features=["stage2"])
    assert all(stage.use_checkpoint for stage in backbone.layers)


def test_a_variant_gives_what_no_knob_says(cfg):
    cfg.MODEL.FOCALNET.VARIANT = "focalnet_tiny_lrf"
    with torch.device("meta"):
        config = build_backbone(cfg).config
    assert config.focal_levels == [3, 3, 3, 3]
    assert config.embed_dim == 4


@pytest.mark.parametrize(("freeze_at", "frozen"), [(0, 0), (1, 1), (3, 3)])
def test_freeze_at_counts_the_stem_as_one(cfg, freeze_at, frozen):
    cfg.MODEL.FOCALNET.FREEZE_AT = freeze_at
    backbone = build_backbone(cfg)
    parts = [backbone.patch_embed, *(stage.blocks for stage in backbone.layers)]
    trainable = [all(p.requires_grad for p in part.parameters()) for part in parts]
    assert trainable == [False] * frozen + [True] * (5 - frozen)


@pytest.mark.parametrize(
    ("key", "value", "error", "message"),
    [
        ("VARIANT", "focalnet_tiny", KeyError, "focalnet_tiny_srf"),
        ("FOCAL_WINDOWS", [4, 3, 3, 3], ValueError, "focal_windows must be odd"),
        ("OUT_FEATURES", ["res6"], ValueError, "'res6'.* not among"),
        ("OUT_FEATURES", ["res2", "stage1"], ValueError, "duplicates"),
        ("WEIGHTS", "no_such.pth", FileNotFoundError, "no_such.pth"),
        ("NUM_CHANNELS", 1, ValueError, "NUM_CHANNELS is 1, but MODEL.PIXEL_MEAN has 3"),
    ],
)
def test_a_wrong_key_is_named(cfg, key, value, error, message):
    cfg.MODEL.FOCALNET[key] = value
    with pytest.raises(error, match=message):
        build_backbone(cfg)


def test_reference_weights_load_strictly_and_answer_as_the_release_did():
    golden = load_golden("downstream_srf")
    backbone = FocalNetBackbone(**knobs_from_reference(golden["kwargs"])).double().eval()
    backbone.load_state_dict(golden["state_dict"], strict=True)
    features = backbone(golden["input"].double())
    for feature, expected in zip(features.values(), golden["features"], strict=True):
        torch.testing.assert_close(feature, expected, rtol=0, atol=1e-9)


def test_the_work_is_that_of_the_core():
    variant = "focalnet_tiny_srf"
    knobs = {"focal_windows": [9, 9, 9, 9], "out_features": ["stage1", "stage2", "stage3", "stage4"]}
    image = torch.zeros(1, 3, 64, 64)
    parameters, macs = count(FocalNetBackbone(variant, **knobs), image)
    assert (parameters, macs) == count(FocalNet(FocalNetConfig.from_variant(variant), **knobs), image)
    assert macs > 3e8


def test_features_are_the_cores_bit_for_bit_after_detectron2s_normalisation_and_padding(tiny_cfg):
    model = build_model(tiny_cfg).eval()
    core = FocalNet(model.backbone.bottom_up.config)
    core.load_state_dict(model.backbone.bottom_up.state_dict(), strict=True)
    images = [torch.randint(0, 256, (3, 50, 70)), torch.randint(0, 256, (3, 64, 40))]

    padded = torch.zeros(2, 3, 64, 96)
    mean, std = (torch.tensor(tiny_cfg.MODEL[key]).view(3, 1, 1) for key in ("PIXEL_MEAN", "PIXEL_STD"))
    for canvas, image in zip(padded, images, strict=True):
        canvas[:, : image.shape[1], : image.shape[2]] = (image - mean) / std

    features = {}
    model.backbone.bottom_up.register_forward_hook(lambda module, inputs, output: features.update(output))
    with torch.no_grad():
        model([{"image": image} for image in images])
        expected = core.eval()(padded)
    assert list(features) == ["stage1", "stage2", "stage3", "stage4"]
    for name in features:
        assert torch.equal(features[name], expected[name])


@pytest.mark.parametrize(
    ("builder", "levels"),
    [
        ("build_focalnet_fpn_backbone", ["p2", "p3", "p4", "p5", "p6"]),
        ("build_retinanet_focalnet_fpn_backbone", ["p3", "p4", "p5", "p6", "p7"]),
    ],
)
def test_pyramids_have_the_levels_of_their_detectors(cfg, builder, levels):
    cfg.MODEL.FPN.IN_FEATURES = ["stage1", "stage2", "stage3", "stage4"][-len(levels) + 1 :]
    if "retinanet" in builder:
        cfg.MODEL.FPN.IN_FEATURES = ["stage2", "stage3", "stage4"]
    cfg.MODEL.FPN.OUT_CHANNELS = 8
    pyramid = BACKBONE_REGISTRY.get(builder)(cfg, ShapeSpec(channels=3))
    assert isinstance(pyramid, FPN)
    maps = pyramid(torch.zeros(1, 3, 128, 128))
    assert {name: tuple(x.shape) for name, x in maps.items()} == {
        level: (1, 8, 128 // 2 ** int(level[1]), 128 // 2 ** int(level[1])) for level in levels
    }


def rcnn(cfg: CfgNode) -> None:
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 4


def cascade(cfg: CfgNode) -> None:
    rcnn(cfg)
    cfg.MODEL.ROI_HEADS.NAME = "CascadeROIHeads"
    cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = True


def panoptic(cfg: CfgNode) -> None:
    rcnn(cfg)
    cfg.MODEL.META_ARCHITECTURE = "PanopticFPN"
    semantic(cfg)


def semantic(cfg: CfgNode) -> None:
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 3
    cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM = 8
    cfg.MODEL.SEM_SEG_HEAD.NORM = ""


def semantic_segmentor(cfg: CfgNode) -> None:
    semantic(cfg)
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"


def semantic_segmentor_without_fpn(cfg: CfgNode) -> None:
    semantic_segmentor(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_focalnet_backbone"
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["stage1", "stage2", "stage3", "stage4"]


def retinanet(cfg: CfgNode) -> None:
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_focalnet_fpn_backbone"
    cfg.MODEL.FOCALNET.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["stage2", "stage3", "stage4"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8], [16], [32], [64], [128]]
    cfg.MODEL.RETINANET.NUM_CLASSES = 4
    cfg.MODEL.RETINANET.NUM_CONVS = 1


@pytest.mark.parametrize(
    "meta_architecture", [rcnn, cascade, retinanet, panoptic, semantic_segmentor, semantic_segmentor_without_fpn]
)
def test_every_meta_architecture_trains_and_infers(tiny_cfg, meta_architecture):
    meta_architecture(tiny_cfg)
    torch.manual_seed(0)
    model = build_model(tiny_cfg)
    height, width = 50, 70
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(torch.tensor([[10.0, 10.0, 40.0, 40.0]]))
    instances.gt_classes = torch.tensor([1])
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[0, 10:40, 10:40] = True
    instances.gt_masks = BitMasks(mask)
    sample = {
        "image": torch.randint(0, 256, (3, height, width)),
        "instances": instances,
        "sem_seg": torch.ones(height, width, dtype=torch.long),
        "height": height,
        "width": width,
    }
    with EventStorage():
        losses = model([sample])
    sum(losses.values()).backward()
    # Each parameter takes part, which training in several processes asks for.
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    with torch.no_grad():
        (output,) = model.eval()([sample])
    if "sem_seg" in output:
        assert output["sem_seg"].shape == (3, height, width)
    if "instances" in output:
        assert output["instances"].image_size == (height, width)
    assert output


def test_importing_the_plugin_prints_nothing():
    done = subprocess.run([sys.executable, "-c", "import focalnet_backbone.detectron2"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("read", [["stage2", "stage3", "stage4"], ["res4", "stage4"]])
def test_what_leads_to_maps_that_no_fpn_reads_is_not_trained(cfg, read, caplog):
    """Which DistributedDataParallel would wait for, as it gets no gradient."""
    cfg.MODEL.BACKBONE.NAME = "build_focalnet_fpn_backbone"
    cfg.MODEL.FPN.IN_FEATURES = read
    fpn = build_backbone(cfg)
    sum(features.sum() for features in fpn(torch.rand(1, 3, 64, 64)).values()).backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in fpn.parameters())
    assert not fpn.bottom_up.norm0.weight.requires_grad
    assert "no FPN or head reads stage" in caplog.text


def test_what_all_maps_lead_to_is_trained_where_all_are_read(cfg, caplog):
    cfg.MODEL.BACKBONE.NAME = "build_focalnet_fpn_backbone"
    cfg.MODEL.FPN.IN_FEATURES = ["stage1", "stage2", "stage3", "stage4"]
    assert all(parameter.requires_grad for parameter in build_backbone(cfg).parameters())
    assert not caplog.text
