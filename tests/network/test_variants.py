"""The published models: names, sizes, and errors."""

from __future__ import annotations

import json

import pytest
import torch

from focalnet_backbone import FocalNetConfig, create_backbone, list_variants
from focalnet_backbone.analysis import analyze
from focalnet_backbone.models import FocalNetForImageClassification
from focalnet_backbone.network.variants import VARIANTS
from tests.conftest import DATA, REFERENCE_KNOBS

PUBLISHED = json.loads((DATA / "variants.json").read_text())["variants"]
SOURCES = {
    "huggingface_timm": "timm",
    "huggingface_transformers": "transformers",
    "github_release": "release",
    "huggingface_authors_upload": "authors",
    "huggingface_mirror": "mirror",
}


def classifier(name: str, **overrides) -> FocalNetForImageClassification:
    """The variant's classification model on the meta device."""
    with torch.device("meta"):
        return FocalNetForImageClassification(FocalNetConfig.from_variant(name, **overrides))


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_all_published_models_are_there():
    assert list_variants() == list(PUBLISHED)


def test_patterns_select_variants():
    assert list_variants("focalnet_base_*") == ["focalnet_base_srf", "focalnet_base_lrf", "focalnet_base_iso"]
    assert list_variants("nothing*") == []


@pytest.mark.parametrize("name", PUBLISHED)
def test_config_and_parameters_are_the_published_ones(name):
    published = PUBLISHED[name]
    config = FocalNetConfig.from_variant(name)
    for knob, value in published["config"].items():
        assert getattr(config, REFERENCE_KNOBS.get(knob, knob)) == value
    assert (config.num_labels, config.image_size) == (published["num_classes"], published["pretrained_size"])
    assert parameters(classifier(name)) == published["params_with_head"]
    assert parameters(classifier(name, num_labels=0)) == published["params_without_head"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_sources_of_weights_and_published_numbers_are_listed(name):
    published, variant = PUBLISHED[name], VARIANTS[name]
    assert dict(variant.weights) == {SOURCES[kind]: address for kind, address in published["weights"].items()}
    numbers = (variant.published_params, variant.published_macs, variant.published_top1)
    assert numbers == tuple(published["published"][key] for key in ("params_m", "gmacs_224", "top1"))


@pytest.mark.parametrize("name", [name for name in PUBLISHED if PUBLISHED[name]["published"]["gmacs_224"]])
def test_macs_agree_with_the_published_ones(name):
    measured = analyze(classifier(name), 224).macs / 1e9
    assert measured == pytest.approx(PUBLISHED[name]["published"]["gmacs_224"], rel=0.02)


def test_overrides_reach_the_backbone():
    backbone = create_backbone("focalnet_tiny_iso", depths=[1], out_features=["stem", "stage1"], embed_dim=8)
    assert backbone.channels == {"stem": 8, "stage1": 8}
    assert backbone.strides == {"stem": 16, "stage1": 16}


@pytest.mark.parametrize("build", [create_backbone, FocalNetConfig.from_variant])
def test_a_wrong_name_answers_with_the_closest_right_ones(build):
    with pytest.raises(KeyError, match=r"no FocalNet variant 'focalnet-tiny-lrf'\. Did you mean 'focalnet_tiny_lrf'"):
        build("focalnet-tiny-lrf")
