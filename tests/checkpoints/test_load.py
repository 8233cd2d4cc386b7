"""Loading into a model: what is reported, what is an error, and that an error changes nothing."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from focalnet_backbone import FocalNet, create_backbone
from focalnet_backbone.checkpoints import CheckpointError, LoadReport, export_state_dict, load_checkpoint
from focalnet_backbone.checkpoints.save import save_transformers
from focalnet_backbone.models import FocalNetForImageClassification, FocalNetForMaskedImageModeling, FocalNetModel
from tests.checkpoints.families import backbone, randomise, shrunk, timm_model
from tests.conftest import knobs_from_reference, load_golden

TINY = "focalnet_tiny_srf"


def classifier(variant: str = TINY, **overrides) -> FocalNetForImageClassification:
    return randomise(FocalNetForImageClassification(shrunk(variant, **overrides)))


def without(state_dict: dict, *names: str) -> dict:
    return {name: x for name, x in state_dict.items() if not name.startswith(names)}


@pytest.mark.parametrize(
    "golden",
    ["downstream_srf", "downstream_lrf_odd_size", "downstream_dino_large", "downstream_windows_11_9_9_7_indices_1_2_3"],
)
def test_a_published_detectors_backbone_loads_whole(golden):
    golden = load_golden(golden)
    indices = [i + 1 for i in golden["kwargs"].get("out_indices", range(4))]
    model = FocalNet(**knobs_from_reference(golden["kwargs"]), out_indices=indices)
    report = load_checkpoint(model, {"state_dict": {f"backbone.{k}": v for k, v in golden["state_dict"].items()}})
    assert set(report.loaded) == set(golden["state_dict"]) == set(model.state_dict())
    features = model.eval().double()(golden["input"].double())
    for feature, expected in zip(features.values(), golden["features"], strict=True):
        torch.testing.assert_close(feature, expected, rtol=1e-9, atol=1e-9)


def test_classification_weights_load_into_a_backbone_and_the_report_says_what_is_normal():
    model = backbone()
    norms = {name: x.clone() for name, x in model.state_dict().items() if name.startswith("norm")}
    source = classifier().state_dict()
    report = load_checkpoint(model, source)
    assert set(report.missing) == set(norms)
    assert report.ignored == ("norm.weight", "norm.bias", "head.weight", "head.bias")
    assert set(report.loaded) == set(without(source, "norm.", "head."))
    assert not report.resized + report.unexpected + report.differs
    for name, x in model.state_dict().items():
        assert torch.equal(x, norms[name] if name in norms else source[name]), name


def test_the_report_is_one_line_with_every_count():
    source = classifier().state_dict()
    line = str(load_checkpoint(backbone(focal_windows=[9, 3, 3, 3]), source))
    kernels = "layers.*.blocks.*.modulation.focal_layers.0.0, layers.*.blocks.*.modulation.focal_layers.1.0"
    assert line == (
        f"state dict (native format): loaded {len(source) - 6} tensors, resized 2 ({kernels}), "
        "ignored 4 (norm, head), missing 8 (norm0, norm1, norm2, norm3), unexpected 0"
    )


def test_the_report_is_logged(caplog):
    with caplog.at_level(logging.INFO, logger="focalnet_backbone"):
        report = load_checkpoint(backbone(), classifier().state_dict())
    assert str(report) in [record.message for record in caplog.records]


@pytest.mark.parametrize(
    ("model", "source", "words"),
    [
        (backbone, lambda: without(backbone().state_dict(), "layers.2.blocks.0.mlp.fc1."), "lacks 2 .*mlp.fc1"),
        (backbone, lambda: without(backbone().state_dict(), "patch_embed."), "lacks 4 .*patch_embed"),
        (backbone, lambda: {**backbone().state_dict(), "pos_embed": torch.ones(4)}, r"1 tensors .*\(pos_embed\)"),
        (
            backbone,
            lambda: without(backbone().state_dict(), "layers.0.blocks.0.modulation.focal_layers.1."),
            r"lacks 1 .*focal_layers.1",
        ),
        (
            classifier,
            lambda: without(classifier().state_dict(), "head."),
            r"lacks 2 .*\(head\); .* without a classifier",
        ),
        (classifier, lambda: without(classifier().state_dict(), "norm."), r"lacks 2 .*\(norm\)"),
        (
            backbone,
            lambda: FocalNetForMaskedImageModeling(shrunk(TINY)).state_dict(),
            r"3 tensors .*\(mask_token, decoder\.\*\)",
        ),
    ],
    ids=["block", "stem", "extra", "kernel", "head", "norm", "decoder"],
)
def test_any_other_missing_or_left_over_tensor_is_an_error_unless_not_strict(model, source, words):
    model, source = model(), source()
    with pytest.raises(CheckpointError, match=words + r".*strict=False"):
        load_checkpoint(model, source)
    report = load_checkpoint(model, source, strict=False)
    assert report.missing or report.unexpected
    assert all(torch.equal(model.state_dict()[name], source[name]) for name in report.loaded)


def test_norms_of_maps_that_are_not_wanted_are_ignored():
    source = backbone().state_dict()
    model = FocalNet(shrunk(TINY))
    report = load_checkpoint(model, source)
    assert report.ignored == tuple(f"norm{i}.{part}" for i in range(3) for part in ("weight", "bias"))
    assert set(report.loaded) == set(model.state_dict())


@pytest.mark.parametrize("indices", [[0], [1], [0, 2], [1, 3]])
def test_stages_after_the_last_wanted_map_are_left_out_and_counted(indices):
    whole = backbone()
    model = FocalNet(shrunk(TINY), out_indices=indices)
    report = load_checkpoint(model, whole.state_dict())
    gone = range(indices[-1], 4)
    parts = [f"{part}{stage}." for part in ("layers.", "norm") for stage in gone]
    parts.append(f"layers.{indices[-1] - 1}.downsample.")
    later = {name for name in whole.state_dict() if name.startswith(tuple(parts))}
    assert set(report.not_built) == later
    assert f"left out {len(later)} of stages after the last map" in str(report)
    assert not report.missing + report.unexpected
    x = torch.randn(1, 3, 40, 56)
    expected = FocalNet(shrunk(TINY), out_indices=[0, 1, 2, 3, 4])
    load_checkpoint(expected, whole.state_dict())
    for name, feature in model.eval()(x).items():
        torch.testing.assert_close(feature, expected.eval()(x)[name])


def test_a_stage_that_the_models_network_has_not_is_no_later_one():
    source = {**backbone().state_dict(), "layers.4.blocks.0.norm1.weight": torch.ones(32)}
    with pytest.raises(CheckpointError, match=r"1 tensors that the model has no place for .*depths"):
        load_checkpoint(FocalNet(shrunk(TINY), out_indices=[1]), source)


def test_a_head_of_other_classes_is_left_alone_when_not_strict():
    model, source = classifier(num_labels=3), classifier(num_labels=7)
    head = model.head.weight.clone()
    with pytest.raises(CheckpointError, match="num_labels"):
        load_checkpoint(model, source.state_dict())
    report = load_checkpoint(model, source.state_dict(), strict=False)
    assert torch.equal(model.head.weight, head)
    assert torch.equal(model.norm.weight, source.norm.weight)
    assert {"head.weight", "head.bias"} <= set(report.missing) & set(report.ignored)


def with_value(value: float, name: str = "layers.1.blocks.0.mlp.fc1.weight") -> dict:
    source = {key: x.clone() for key, x in backbone().state_dict().items()}
    source[name].view(-1)[0] = value
    return source


@pytest.mark.parametrize(
    "source",
    [
        lambda: with_value(float("nan")),
        lambda: with_value(float("inf")),
        lambda: without(backbone().state_dict(), "layers.3.blocks.0.mlp.fc2.bias"),
        lambda: {**backbone().state_dict(), "norm3.weight": torch.ones(5)},
        lambda: {**backbone().state_dict(), "norm3.weight": torch.ones(32, dtype=torch.int64)},
        lambda: {**backbone().state_dict(), "norm3.weight": torch.ones(32, dtype=torch.float8_e4m3fn)},
        lambda: {**backbone().state_dict(), "norm3.weight": torch.ones(32).to_sparse()},
        lambda: {**backbone().state_dict(), "norm3.weight": torch.ones(32, device="meta")},
        lambda: {**backbone().state_dict(), "norm3.weight": "ones"},
        lambda: backbone("focalnet_large_fl3").state_dict(),
        lambda: timm_model(shrunk(TINY, use_post_layernorm=True)).state_dict(),
        lambda: {"conv.weight": torch.ones(1)},
        lambda: "no/such/file.pth",
    ],
    ids=[
        "nan",
        "inf",
        "missing",
        "shape",
        "integer",
        "float8",
        "sparse",
        "meta",
        "no-tensor",
        "architecture",
        "post-norm",
        "resnet",
        "no-file",
    ],
)
def test_a_failed_load_leaves_the_model_as_it_was(source):
    model = FocalNet(shrunk(TINY), out_indices=range(1, 5))
    before = {name: x.clone() for name, x in model.state_dict().items()}
    with pytest.raises((CheckpointError, FileNotFoundError)):
        load_checkpoint(model, source())
    for name, x in model.state_dict().items():
        assert torch.equal(x, before[name]), name


def test_nan_is_an_error_that_names_the_tensor():
    with pytest.raises(CheckpointError, match=r"layers\.1\.blocks\.0\.mlp\.fc1\.weight contains NaN"):
        load_checkpoint(backbone(), with_value(float("nan")))


def test_where_the_blocks_normalise_must_agree_with_timms_names():
    model = backbone(use_post_layernorm=False)
    source = timm_model(shrunk(TINY, use_post_layernorm=True)).state_dict()
    with pytest.raises(CheckpointError, match="use_post_layernorm: True in the source, False in the model"):
        load_checkpoint(model, source)
    assert load_checkpoint(model, source, strict=False).differs


@pytest.mark.parametrize(
    ("variant", "knob", "theirs", "ours"),
    [
        (TINY, "normalize_modulator", True, False),
        (TINY, "hidden_act", "relu", "gelu"),
        (TINY, "layer_norm_eps", 1e-6, 1e-5),
        ("focalnet_large_fl3", "conv_embed_stem_padding", 3, 2),
    ],
)
def test_a_knob_that_no_shape_shows_is_compared_with_the_config_of_the_source(
    tmp_path, caplog, variant, knob, theirs, ours
):
    config = shrunk(variant, **{knob: theirs})
    save_transformers(tmp_path, FocalNetModel(config).state_dict(), config)
    report = load_checkpoint(backbone(variant, **{knob: ours}), tmp_path)
    assert report.differs == (f"{knob}: {theirs} in the source, {ours} in the model",)
    assert "differs in" in caplog.text
    assert not load_checkpoint(backbone(variant, **{knob: theirs}), tmp_path).differs


def test_the_padding_of_a_stem_that_a_model_does_not_have_is_not_compared(tmp_path):
    config = shrunk(TINY, conv_embed_stem_padding=3)
    save_transformers(tmp_path, FocalNetModel(config).state_dict(), config)
    assert not load_checkpoint(backbone(), tmp_path).differs


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_model_keeps_its_own_precision(dtype):
    model = backbone()
    source = {name: x.to(dtype) for name, x in backbone().state_dict().items()}
    load_checkpoint(model, source)
    assert model.patch_embed.proj.weight.dtype == torch.float32
    assert torch.equal(model.patch_embed.proj.weight, source["patch_embed.proj.weight"].float())


def test_a_value_that_the_models_precision_cannot_hold_is_an_error_that_names_the_tensor():
    model = backbone().half()
    before = model.patch_embed.proj.weight.clone()
    with pytest.raises(CheckpointError, match=r"mlp\.fc1\.weight has values beyond the range .*float16"):
        load_checkpoint(model, with_value(1e5))
    assert torch.equal(model.patch_embed.proj.weight, before)


def test_a_model_without_memory_is_refused():
    with torch.device("meta"):
        model = FocalNet(shrunk(TINY))
    with pytest.raises(ValueError, match=r"meta device.*to_empty"):
        load_checkpoint(model, classifier().state_dict())


def test_the_source_and_the_model_share_no_memory():
    model, source = backbone(), backbone().state_dict()
    load_checkpoint(model, source)
    source["norm3.weight"].zero_()
    assert model.norm3.weight.abs().sum() > 0


def test_subclasses_and_frozen_models_load():
    class Plugin(FocalNet):
        pass

    model = Plugin(shrunk(TINY), frozen_stages=4)
    load_checkpoint(model, classifier().state_dict())
    assert torch.equal(model.patch_embed.proj.weight, classifier().patch_embed.proj.weight)
    assert not model.patch_embed.proj.weight.requires_grad


def test_other_models_and_other_sources_are_type_errors():
    with pytest.raises(TypeError, match=r"model must be a FocalNet.*Linear"):
        load_checkpoint(nn.Linear(1, 1), {})
    with pytest.raises(TypeError, match=r"source must be .*int"):
        load_checkpoint(backbone(), 3)


def test_an_empty_name_is_not_the_working_folder(tmp_path, monkeypatch):
    torch.save(backbone().state_dict(), tmp_path / "weights.pth")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="empty string"):
        load_checkpoint(backbone(), "")


def test_a_name_that_is_nothing_is_an_error_with_the_closest_variant():
    with pytest.raises(FileNotFoundError, match="focalnet_tiny_srf"):
        load_checkpoint(backbone(), "focalnet_tiny_sfr")


def test_create_backbone_loads_a_file_and_enlarges_its_kernels(tmp_path):
    source = FocalNetModel(shrunk("focalnet_tiny_lrf", embed_dim=96, depths=[2, 2, 6, 2])).state_dict()
    torch.save(export_state_dict(source, "transformers"), tmp_path / "weights.bin")
    model = create_backbone("focalnet_tiny_lrf", weights=tmp_path / "weights.bin", focal_windows=[9, 9, 9, 9])
    name = "layers.0.blocks.0.modulation.focal_layers.0.0.weight"
    assert torch.equal(model.state_dict()[name][:, :, 3:6, 3:6], source[name])


def test_the_isotropic_variants_have_no_published_weights():
    with pytest.raises(CheckpointError, match="no published weights of focalnet_tiny_iso"):
        create_backbone("focalnet_tiny_iso", weights="pretrained")


def test_long_lists_of_names_are_shortened_in_the_report():
    blocks = [f"layers.{i}.blocks.0.mlp.fc1.weight" for i in range(4)]
    names = (*blocks, "a.bias", "b.bias", "c.bias", "d.bias")
    report = LoadReport("x", "native", (), missing=names)
    assert "missing 8 (layers.*.blocks.*.mlp.fc1, a, b, c and 1 more)" in str(report)
