"""What the pages take for granted: no network, and published weights in the caches."""

from __future__ import annotations

import focalnet_backbone.openmmlab  # noqa: F401  # isort: skip  (lets mmcv.ops be imported)
import logging
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import skimage.data
import torch
import transformers
from mmengine.registry import DefaultScope
from PIL import Image
from safetensors.torch import save_file

from focalnet_backbone.checkpoints import export_state_dict
from focalnet_backbone.models import FocalNetForImageClassification
from focalnet_backbone.models.labels import imagenet_labels
from focalnet_backbone.network.config import FocalNetConfig


@pytest.fixture(autouse=True)
def _calm_mmengine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """mmengine's logger keeps writing to the output of an earlier test; and no config's scope is left behind."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    with DefaultScope.overwrite_default_scope("mmseg"):
        yield


def _loggers() -> list[logging.Logger]:
    named = [logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    return [logging.root, *named]


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    """The frameworks' tools make loggers write to this test's output, where there is none for the tests after it."""
    before = {logger: (list(logger.handlers), logger.level, logger.propagate) for logger in _loggers()}
    yield
    for logger in _loggers():
        handlers, logger.level, logger.propagate = before.get(logger, ([], logging.NOTSET, True))
        logger.handlers[:] = handlers
    logging.root.manager._clear_cache()


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `TORCH_HOME` with files as they are published, of random weights, placed where the downloads would be."""
    home = tmp_path_factory.mktemp("torch_home")
    checkpoints = home / "hub" / "checkpoints"

    timm = checkpoints / "timm--focalnet_tiny_lrf.ms_in1k"
    timm.mkdir(parents=True)
    native = FocalNetForImageClassification(FocalNetConfig.from_variant("focalnet_tiny_lrf")).state_dict()
    save_file(export_state_dict(native, "timm", use_post_layernorm=False), timm / "model.safetensors")

    microsoft = checkpoints / "microsoft--focalnet-tiny"
    config = transformers.FocalNetConfig(id2label=imagenet_labels("imagenet-1k"))
    transformers.FocalNetForImageClassification(config).save_pretrained(microsoft)
    mean_and_std = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    transformers.BitImageProcessor(size={"shortest_edge": 256}, resample=2, **mean_and_std).save_pretrained(microsoft)
    return home


@pytest.fixture
def workplace(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: empty but for a photograph, without network, and with the published weights in the caches."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(published))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(skimage.data.chelsea()).save("cat.jpg")
    return tmp_path
