"""Devices by name: those there are, or one line that says which."""

from __future__ import annotations

import pytest
import torch

from focalnet_backbone import FeatureExtractor, FocalNet
from focalnet_backbone.models.pretraining import pretrain
from focalnet_backbone.network.config import FocalNetConfig
from focalnet_backbone.system.devices import choose_device

WRONG = ("gpu", "meta", "", "cuda:99", "cpu:x", "mkldnn")


def test_the_cpu_is_always_there():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device(torch.device("cpu")) == torch.device("cpu")
    assert choose_device().type in ("cpu", "cuda", "mps", "xpu")


@pytest.mark.parametrize("name", WRONG)
def test_another_name_is_refused_with_what_is_allowed(name):
    with pytest.raises(ValueError, match=rf"device must be cpu.*got '{name}'"):
        choose_device(name)


def test_the_machines_accelerators_are_counted(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert choose_device() == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    for name in ("cuda:2", "mps"):
        with pytest.raises(ValueError, match=rf"cpu or cuda or cuda:0 to cuda:1, got '{name}'"):
            choose_device(name)


def test_a_feature_extractor_and_pretraining_take_no_other(tmp_path):
    with pytest.raises(ValueError, match="device must be cpu"):
        FeatureExtractor(FocalNet(embed_dim=8, depths=[1]), device="meta")
    (tmp_path / "photos").mkdir()
    torch.save({}, tmp_path / "photos" / "a.png")
    with pytest.raises(ValueError, match="device must be cpu"):
        pretrain(FocalNetConfig(embed_dim=8, depths=[1]), tmp_path / "photos", tmp_path / "out", device="gpu")
