"""A dataset and a model small enough to train in seconds, and training as the tools do it."""

from __future__ import annotations

import focalnet_backbone.openmmlab  # noqa: F401  # isort: skip  (lets mmcv.ops be imported)
import itertools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.registry import DefaultScope

from focalnet_backbone.command import train
from focalnet_backbone.sample.scenes import make_sample_dataset

ROOT = Path(__file__).parents[2]
SAMPLE_CONFIG = ROOT / "configs" / "mmseg" / "upernet_focalnet_sample.py"
_NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def _quiet_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """mmengine's logger keeps writing to the output that pytest captured when it was made, and closed since."""
    monkeypatch.setattr(logging, "raiseExceptions", False)


@pytest.fixture(autouse=True)
def _scope() -> Iterator[None]:
    """Each test starts in mmseg's scope, whatever config was read before, and leaves none behind."""
    with DefaultScope.overwrite_default_scope("mmseg"):
        yield


@pytest.fixture(scope="session")
def sample_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample dataset of 6 training and 3 validation images of 64 x 64 pixels."""
    return make_sample_dataset(tmp_path_factory.mktemp("data") / "sample", train=6, val=3, size=64)


@pytest.fixture(scope="session")
def tiny_options(sample_dataset: Path) -> list[str]:
    """Values for `--cfg-options` that make the sample config train a tiny model for 4 iterations."""
    return [
        *(f"{split}_dataloader.dataset.data_root={sample_dataset}" for split in ("train", "val", "test")),
        *(f"{split}_dataloader.num_workers=0" for split in ("train", "val", "test")),
        *(f"{split}_dataloader.persistent_workers=False" for split in ("train", "val", "test")),
        "train_dataloader.batch_size=2",
        "train_dataloader.dataset.pipeline.2.scale=(64,64)",
        "train_dataloader.dataset.pipeline.3.crop_size=(32,32)",
        "model.data_preprocessor.size=(32,32)",
        "model.backbone.embed_dim=4",
        "model.backbone.depths=(1,1,1,1)",
        "model.decode_head.in_channels=(4,8,16,32)",
        "model.decode_head.channels=4",
        "model.auxiliary_head.in_channels=16",
        "train_cfg.max_iters=4",
        "train_cfg.val_interval=2",
        "default_hooks.checkpoint.interval=2",
        "default_hooks.logger.interval=1",
    ]


@pytest.fixture(scope="session")
def run_training(tiny_options: list[str]) -> Callable[..., int]:
    """`run_training(work_dir, *flags, config=..., options=...)`: what `tools/train.py` does, in this process."""

    def run(work_dir: Path, *flags: str, config: Path = SAMPLE_CONFIG, options: tuple[str, ...] = ()) -> int:
        # mmengine keeps its logs by the experiment's name.
        name = f"experiment_name=run{next(_NUMBERS)}"
        arguments = [str(config), "--work-dir", str(work_dir), *flags]
        return train.main([*arguments, "--cfg-options", *tiny_options, name, *options])

    return run


@pytest.fixture(scope="session")
def trained(run_training: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A training run that is done: its `work_dir` and its last `checkpoint`."""
    work_dir = tmp_path_factory.mktemp("trained")
    assert run_training(work_dir) == 0
    return SimpleNamespace(work_dir=work_dir, checkpoint=work_dir / "iter_4.pth")
