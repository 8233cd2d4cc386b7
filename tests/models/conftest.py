"""Small models of every config family, in both libraries with the same weights."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers

from focalnet_backbone import FocalNetConfig, models
from focalnet_backbone.checkpoints import export_state_dict
from focalnet_backbone.models.labels import imagenet_labels

TOOLS = Path(__file__).parents[2] / "tools"
FAMILIES = {
    "srf": {"focal_levels": [2, 2, 2, 2]},
    "lrf": {"focal_levels": [3, 3, 3, 3]},
    "large": {
        "use_conv_embed": True,
        "use_post_layernorm": True,
        "use_layerscale": True,
        "layerscale_value": 0.5,
        "focal_windows": [5, 5, 5, 5],
    },
    "huge": {
        "use_conv_embed": True,
        "use_post_layernorm": True,
        "use_layerscale": True,
        "layerscale_value": 0.5,
        "use_post_layernorm_in_modulation": True,
        "normalize_modulator": True,
    },
}
KNOBS = {"embed_dim": 8, "depths": [1, 1, 2, 1], "image_size": 32, "drop_path_rate": 0.0, "initializer_range": 0.1}


def make_config(family: str = "srf", **knobs: Any) -> FocalNetConfig:
    """A small config of one of the families."""
    return FocalNetConfig(**{**KNOBS, **FAMILIES[family], **knobs})


def make_pair(name: str, config: FocalNetConfig) -> tuple[models.FocalNetModel, torch.nn.Module]:
    """The model class of that name here and in transformers, with the same random weights."""
    torch.manual_seed(0)
    ours = getattr(models, name)(config)
    theirs = getattr(transformers, name)(transformers.FocalNetConfig.from_dict(config.to_dict()))
    theirs.load_state_dict(export_state_dict(ours.state_dict(), "transformers"), strict=True)
    return ours, theirs


@pytest.fixture
def offline(monkeypatch, tmp_path) -> Path:
    """No network and empty caches, whatever the machine has; the folder where a hub's files can be placed."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def images() -> torch.Tensor:
    """Two noise images `(2, 3, 32, 32)`."""
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def mask() -> torch.Tensor:
    """A mask `(2, 64)` for the patches of `images`."""
    return torch.rand(2, 64, generator=torch.Generator().manual_seed(1)) > 0.4


@pytest.fixture
def published(offline):
    """A model of the size of microsoft/focalnet-tiny, as transformers writes it, placed where the hub's would be."""
    config = transformers.FocalNetConfig(id2label=imagenet_labels("imagenet-1k"))
    theirs = transformers.FocalNetForImageClassification(config).eval()
    processor = transformers.BitImageProcessor(
        size={"shortest_edge": 256},
        resample=2,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    folder = offline / "microsoft--focalnet-tiny"
    theirs.save_pretrained(folder)
    processor.save_pretrained(folder)
    return theirs, processor


@pytest.fixture
def run_tool(monkeypatch, capsys):
    """Run a tool as a command; returns its exit status, output and error output."""

    def run(name: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(str(TOOLS / name), run_name="__main__")
        return exit_.value.code, *capsys.readouterr()

    return run
