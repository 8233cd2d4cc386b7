"""Times of files beside the model."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from focalnet_backbone import FocalNet
from focalnet_backbone.command import benchmark
from focalnet_backbone.export.sources import from_backbone
from focalnet_backbone.export.speed import format_formats, measure_formats


def test_each_contender_is_timed_and_compared(tmp_path):
    torch.manual_seed(0)
    network = FocalNet(embed_dim=4, depths=[1, 1], focal_levels=[1, 1], focal_windows=[3, 3], out_indices=[1, 2])
    contenders = ["onnx", "onnx int8"]
    results = measure_formats(from_backbone(network), (16, 24), contenders, tmp_path, rounds=2)
    assert list(results) == ["eager", *contenders]
    assert results["eager"]["ratio"] == 1
    assert results["onnx"]["difference"] < 1e-4 < results["onnx int8"]["difference"] < 0.2
    assert all(one["seconds"] > 0 and one["rounds"] == 2 for one in results.values())
    assert len(format_formats(results).splitlines()) == 4


def test_the_command_writes_what_it_prints(monkeypatch, capsys, tmp_path):
    arguments = ["focalnet_tiny_srf", "--size", "32", "--contenders", "torchscript", "--rounds", "1"]
    file = tmp_path / "speed.json"
    monkeypatch.setattr(sys, "argv", ["focalnet benchmark", "export", *arguments, "--json", str(file)])
    assert benchmark.main() == 0
    assert "torchscript" in capsys.readouterr().out
    assert json.loads(file.read_text())["sizes"]["32"]["torchscript"]["difference"] < 1e-4


@pytest.mark.parametrize(
    ("source", "message"), [("no_such_model", "no_such_model"), ("upernet_focalnet_sample", "name")]
)
def test_a_model_that_cannot_be_had_is_told_in_one_line(monkeypatch, capsys, source, message):
    monkeypatch.setattr(sys, "argv", ["focalnet benchmark", "export", source])
    assert benchmark.main() == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
