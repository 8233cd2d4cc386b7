"""Counting parameters and multiply-accumulates."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from focalnet_backbone import FocalNet, FocalNetConfig
from focalnet_backbone.analysis import analyze, count
from focalnet_backbone.models import FocalNetForImageClassification, FocalNetForMaskedImageModeling

TINY = {"embed_dim": 8, "depths": [1, 2], "out_features": ["stage1", "stage2"]}


def test_counts_of_one_convolution_are_the_analytic_ones():
    conv = nn.Conv2d(3, 5, 3, padding=1)
    assert count(conv, torch.zeros(2, 3, 10, 12)) == (3 * 5 * 9 + 5, 2 * 10 * 12 * 3 * 5 * 9)


def test_parts_add_up_to_the_whole():
    model = FocalNet(**TINY)
    analysis = analyze(model, (32, 48))
    assert [part.name for part in analysis.parts] == ["stem", "stage1", "stage2", "norm0", "norm1"]
    assert analysis.parameters == sum(p.numel() for p in model.parameters())
    assert (analysis.parameters, analysis.macs) == count(model, torch.zeros(1, 3, 32, 48))


@pytest.mark.parametrize("task", [FocalNetForImageClassification, FocalNetForMaskedImageModeling])
def test_models_with_heads_are_counted_whatever_they_return(task):
    model = task(FocalNetConfig(embed_dim=8, depths=[1, 2], image_size=32, encoder_stride=8))
    analysis = analyze(model, 32)
    assert [part.name for part in analysis.parts][-1] in ("head", "decoder")
    assert analysis.parameters == sum(p.numel() for p in model.parameters())
    assert model.config.return_dict


def test_macs_grow_with_pixels_and_batch():
    model = FocalNet(**TINY)
    assert analyze(model, 64).macs == pytest.approx(4 * analyze(model, 32).macs, rel=1e-3)
    assert analyze(model, 32, batch_size=3).macs == 3 * analyze(model, 32).macs


def test_the_model_is_left_as_it_was():
    model = FocalNet(**TINY).train()
    analyze(model, 32)
    assert all(module.training for module in model.modules())
    with torch.device("meta"):
        on_meta = FocalNet(**TINY)
    assert analyze(on_meta, 32).macs == analyze(model, 32).macs
    assert next(on_meta.parameters()).is_meta


def test_the_table_has_a_row_a_part():
    lines = str(analyze(FocalNet(**TINY), 32)).splitlines()
    assert [line.split()[0] for line in lines] == ["part", "stem", "stage1", "stage2", "norm0", "norm1", "total"]


@pytest.mark.parametrize("arguments", [{"size": 0}, {"size": (32, -1)}, {"batch_size": 0}])
def test_a_wrong_size_is_an_error(arguments):
    with pytest.raises(ValueError, match="must be at least 1"):
        analyze(FocalNet(**TINY), **arguments)
