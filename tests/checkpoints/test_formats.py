"""Formats: recognised whatever they are wrapped in, converted to the bit, and understood by the real libraries."""

from __future__ import annotations

import pytest
import timm
import torch
import transformers
from timm.models import FeatureListNet

from focalnet_backbone.checkpoints import CheckpointError, convert_state_dict, export_state_dict, load_checkpoint
from focalnet_backbone.models import (
    FocalNetForImageClassification,
    FocalNetForMaskedImageModeling,
    FocalNetModel,
)
from focalnet_backbone.network.config import FocalNetConfig
from focalnet_backbone.network.variants import VARIANTS
from tests.checkpoints.families import (
    TIMM_VARIANTS,
    backbone,
    randomise,
    shrunk,
    timm_model,
    transformers_config,
    transformers_model,
)


def assert_same_tensors(found: dict, expected: dict) -> None:
    assert set(found) == set(expected)
    for name in expected:
        assert found[name].shape == expected[name].shape, name
        assert torch.equal(found[name], expected[name]), name


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("variant", TIMM_VARIANTS)
def test_weights_of_timm_give_timms_logits(variant):
    config = shrunk(variant)
    theirs = timm_model(config)
    ours = FocalNetForImageClassification(config)
    report = load_checkpoint(ours, theirs.state_dict())
    assert report.format == "timm"
    assert not report.missing + report.unexpected + report.ignored
    expected = theirs.double()(images())
    torch.testing.assert_close(ours.eval().double()(images()).logits, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_of_transformers_give_transformers_logits(variant):
    config = shrunk(variant)
    theirs = transformers_model(config)
    ours = FocalNetForImageClassification(config)
    report = load_checkpoint(ours, theirs.state_dict())
    assert report.format == "transformers"
    assert not report.missing + report.unexpected + report.ignored
    expected = theirs.double()(images()).logits
    torch.testing.assert_close(ours.eval().double()(images()).logits, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant", TIMM_VARIANTS)
def test_exported_weights_load_into_timm_and_give_our_logits(variant):
    config = shrunk(variant)
    ours = randomise(FocalNetForImageClassification(config))
    theirs = timm_model(config)
    exported = export_state_dict(ours.state_dict(), "timm", use_post_layernorm=config.use_post_layernorm)
    theirs.load_state_dict(exported, strict=True)
    expected = ours.double()(images()).logits
    torch.testing.assert_close(theirs.double()(images()), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_exported_weights_load_into_transformers_and_give_our_logits(variant):
    config = shrunk(variant)
    ours = randomise(FocalNetForImageClassification(config))
    theirs = transformers_model(config)
    theirs.load_state_dict(export_state_dict(ours.state_dict(), "transformers"), strict=True)
    expected = ours.double()(images()).logits
    torch.testing.assert_close(theirs.double()(images()).logits, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("to", ["transformers", "timm"])
@pytest.mark.parametrize("variant", TIMM_VARIANTS)
def test_native_weights_come_back_from_another_format_to_the_bit(variant, to):
    config = shrunk(variant)
    native = randomise(FocalNetForImageClassification(config)).state_dict()
    exported = export_state_dict(native, to, use_post_layernorm=config.use_post_layernorm)
    converted, found = convert_state_dict(exported)
    assert found == to
    assert_same_tensors(converted, native)


@pytest.mark.parametrize("variant", TIMM_VARIANTS)
def test_every_full_size_variant_has_timms_names_and_shapes(variant):
    config = FocalNetConfig.from_variant(variant)
    with torch.device("meta"):
        native = FocalNetForImageClassification(config).state_dict()
        theirs = timm.create_model(variant, num_classes=config.num_labels).state_dict()
    exported = export_state_dict(native, "timm", use_post_layernorm=config.use_post_layernorm)
    assert {name: x.shape for name, x in exported.items()} == {name: x.shape for name, x in theirs.items()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_full_size_variant_has_transformers_names_and_shapes(variant):
    config = FocalNetConfig.from_variant(variant)
    with torch.device("meta"):
        native = FocalNetForImageClassification(config).state_dict()
        theirs = transformers.FocalNetForImageClassification(transformers_config(config)).state_dict()
    exported = export_state_dict(native, "transformers")
    assert {name: x.shape for name, x in exported.items()} == {name: x.shape for name, x in theirs.items()}


@pytest.mark.parametrize("ours", [FocalNetModel, FocalNetForMaskedImageModeling])
def test_the_other_models_of_transformers_convert_both_ways(ours):
    config = shrunk("focalnet_tiny_srf", encoder_stride=8)
    theirs = transformers_model(config, ours.__name__)
    model = ours(config)
    report = load_checkpoint(model, theirs.state_dict())
    assert not report.missing + report.unexpected + report.ignored
    assert_same_tensors(export_state_dict(model.state_dict(), "transformers"), theirs.state_dict())


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "teacher", "model_ema", "my_own_name"])
@pytest.mark.parametrize("make", [backbone, lambda: timm_model(shrunk("focalnet_tiny_srf"))], ids=["native", "timm"])
def test_weights_are_found_inside_wrappers(wrapper, make):
    state_dict = make().state_dict()
    wrapped = {"epoch": 3, "optimizer": {"state": {0: torch.ones(2)}}, wrapper: state_dict}
    assert_same_tensors(convert_state_dict(wrapped)[0], convert_state_dict(state_dict)[0])


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "backbone.",
        "backbone.bottom_up.",
        "backbone.0.body.",
        "encoder.",
        "visual.",
        "module.backbone.",
        "_orig_mod.",
        "detector.backbone.",
    ],
)
@pytest.mark.parametrize("to", ["native", "transformers", "timm"])
def test_weights_are_found_under_prefixes_and_the_rest_of_a_detector_is_left_out(prefix, to):
    config = shrunk("focalnet_tiny_srf")
    native = randomise(FocalNetForImageClassification(config)).state_dict()
    exported = export_state_dict(native, to, use_post_layernorm=False)
    detector = {f"{prefix}{name}": x for name, x in exported.items()}
    detector |= {"neck.convs.0.weight": torch.ones(1), "decoder.0.weight": torch.ones(1)}
    assert_same_tensors(convert_state_dict(detector)[0], native)


def test_where_a_file_holds_several_sets_of_weights_the_trained_model_is_taken_and_said(caplog):
    model, average = backbone().state_dict(), {name: x * 2 for name, x in backbone().state_dict().items()}
    native, _ = convert_state_dict({"model_ema": average, "model": model})
    assert_same_tensors(native, model)
    assert "'model_ema', 'model'; taking 'model'" in caplog.text


def test_two_networks_in_one_state_dict_are_an_error_that_names_their_prefixes():
    state_dict = backbone().state_dict()
    both = {f"{who}.backbone.{name}": x for who in ("student", "teacher") for name, x in state_dict.items()}
    with pytest.raises(CheckpointError, match=r"'student\.backbone\.', 'teacher\.backbone\.'"):
        convert_state_dict(both)


def test_a_masked_image_model_with_its_trunk_under_a_prefix_is_read_whole():
    native = randomise(FocalNetForMaskedImageModeling(shrunk("focalnet_tiny_srf", encoder_stride=8))).state_dict()
    simmim = {name if name.startswith("decoder.") else f"encoder.{name}": x for name, x in native.items()}
    assert_same_tensors(convert_state_dict(simmim)[0], native)


def test_timms_feature_extractor_is_read():
    config = shrunk("focalnet_tiny_srf")
    theirs = FeatureListNet(timm_model(config), out_indices=(0, 1, 2, 3), flatten_sequential=True)
    report = load_checkpoint(backbone(), theirs.state_dict())
    assert report.format == "timm"
    assert all(name.startswith("norm") for name in report.missing)


def test_numpy_arrays_are_read():
    native = backbone().state_dict()
    converted, _ = convert_state_dict({"model": {name: x.numpy() for name, x in native.items()}})
    assert_same_tensors(converted, native)


@pytest.mark.parametrize(
    ("checkpoint", "words"),
    [
        ({}, "it is empty"),
        ({"model": {}}, "its names are model"),
        ({"model": {"conv1.weight": torch.ones(1), "bn1.weight": torch.ones(1)}}, "conv1.weight, bn1.weight"),
        ([torch.ones(1)], "it is a list"),
    ],
    ids=["empty", "empty-model", "resnet", "list"],
)
def test_what_is_no_focalnet_is_an_error_that_says_what_it_is(checkpoint, words):
    with pytest.raises(CheckpointError, match=words):
        convert_state_dict(checkpoint)


def test_a_checkpoint_that_holds_itself_is_no_focalnet():
    checkpoint: dict = {"model": {"epoch": 3}}
    checkpoint["model"]["model"] = checkpoint
    with pytest.raises(CheckpointError, match=r"its names are .*with no focal modulation among them"):
        convert_state_dict(checkpoint)


def test_a_transformer_with_the_same_stem_is_not_taken_for_a_focalnet():
    with torch.device("meta"):
        swin = timm.create_model("swin_s3_tiny_224").state_dict()
    with pytest.raises(CheckpointError, match=r"patch_embed\.proj\.weight.*no focal modulation among them"):
        convert_state_dict(swin)


@pytest.mark.parametrize(
    ("state_dict", "to", "words"),
    [
        (backbone().state_dict(), "transformers", "transformers has no place for norm0.weight"),
        (backbone().state_dict(), "timm", "timm has no place for norm0.weight"),
        ({"mask_token": torch.ones(1, 1, 4)}, "timm", "timm has no place for mask_token"),
        (FocalNetModel(shrunk("focalnet_tiny_iso")).state_dict(), "timm", "patches of 16 pixels"),
    ],
    ids=["output-norm-transformers", "output-norm-timm", "mask-token", "isotropic"],
)
def test_what_a_format_has_no_place_for_is_not_left_out_silently(state_dict, to, words):
    with pytest.raises(CheckpointError, match=words):
        export_state_dict(state_dict, to, use_post_layernorm=False)


def test_export_asks_for_what_the_names_depend_on():
    with pytest.raises(ValueError, match="use_post_layernorm"):
        export_state_dict(backbone().state_dict(), "timm")
    with pytest.raises(ValueError, match="onnx"):
        export_state_dict(backbone().state_dict(), "onnx")


def test_dicts_that_hold_one_another_many_times_are_looked_into_once():
    inner: dict = {"nothing": 0}
    for _ in range(8):
        inner = {str(i): inner for i in range(1000)}
    with pytest.raises(CheckpointError, match="holds no FocalNet weights"):
        convert_state_dict(inner)
