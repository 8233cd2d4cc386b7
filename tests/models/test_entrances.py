"""Every function by which a weight comes in, outside of the hosts: none runs what is in a file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from focalnet_backbone import FeatureExtractor, FocalNet, create_backbone, load_checkpoint
from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.checkpoints.convert import convert_checkpoint
from focalnet_backbone.create import build_backbone, open_backbone
from focalnet_backbone.models import FocalNetForImageClassification
from focalnet_backbone.models.classify import load_classifier
from focalnet_backbone.models.pretraining import Recipe, pretrain
from focalnet_backbone.network.config import FocalNetConfig
from tests.checkpoints.hostile import HOSTILE
from tests.checkpoints.server import FileServer

CONFIG = FocalNetConfig(embed_dim=8, depths=[1], image_size=32)


def in_folder(source: str) -> Path:
    """A folder as transformers writes it, with that file for its weights."""
    folder = Path(source).parent / "model"
    CONFIG.save_pretrained(folder)
    shutil.copy(source, folder / "pytorch_model.bin")
    return folder


def resume_pretraining(source: str) -> None:
    folder = Path(source).parent
    (folder / "photos").mkdir()
    Image.new("RGB", (40, 40)).save(folder / "photos" / "a.png")
    (folder / "out").mkdir()
    shutil.copy(source, folder / "out" / "checkpoint.pth")
    recipe = Recipe(image_size=32, steps=2, warmup_steps=1, batch_size=1)
    pretrain(CONFIG, folder / "photos", folder / "out", recipe, resume=True, device="cpu", workers=0)


BY_NAME = {
    "load_checkpoint": lambda source: load_checkpoint(FocalNet(CONFIG), source),
    "create_backbone": lambda source: create_backbone("focalnet_tiny_srf", weights=source, embed_dim=8, depths=[1] * 4),
    "build_backbone": lambda source: build_backbone(source),
    "open_backbone": lambda source: open_backbone(None, source),
    "FeatureExtractor": lambda source: FeatureExtractor(FocalNet(CONFIG), weights=source),
    "from_pretrained": lambda source: FocalNetForImageClassification.from_pretrained(source, config=CONFIG),
    "convert_checkpoint": lambda source: convert_checkpoint(source, Path(source).name + ".out.pth", "native"),
}
BY_PATH = {
    "from_pretrained of a folder": lambda source: FocalNetForImageClassification.from_pretrained(in_folder(source)),
    "load_classifier": lambda source: load_classifier(weights=in_folder(source)),
    "pretrain --resume": resume_pretraining,
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("entrance", [*BY_NAME, *BY_PATH])
def test_no_entrance_runs_what_is_in_a_file(tmp_path, monkeypatch, entrance, kind):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    marker, path = tmp_path / "code_was_run", tmp_path / "weights.pth"
    HOSTILE[kind](path, marker)
    with FileServer(files={"/weights.pth": path.read_bytes()}).running() as server:
        for source in [str(path), f"{server.address}/weights.pth"] if entrance in BY_NAME else [str(path)]:
            with pytest.raises(CheckpointError, match="pickle that needs more than tensors"):
                {**BY_NAME, **BY_PATH}[entrance](source)
    assert not marker.exists()


def test_a_resumed_pretraining_takes_no_nan(tmp_path):
    recipe = Recipe(image_size=32, steps=2, warmup_steps=1, batch_size=1)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "photos" / "a.png")
    pretrain(CONFIG, tmp_path / "photos", tmp_path / "out", recipe, device="cpu", workers=0)
    state = torch.load(tmp_path / "out" / "checkpoint.pth", weights_only=True)
    state["model"]["mask_token"][...] = float("nan")
    torch.save(state, tmp_path / "out" / "checkpoint.pth")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pth.*mask_token contain NaN"):
        pretrain(CONFIG, tmp_path / "photos", tmp_path / "out", recipe, resume=True, device="cpu", workers=0)
