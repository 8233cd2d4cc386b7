"""Fixtures of the detectron2 tests: a sample dataset, and a detector small enough to train in a test."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from detectron2.utils.logger import setup_logger

from focalnet_backbone.detectron2.jobs import load_yaml
from focalnet_backbone.sample.scenes import make_sample_dataset

TINY = Path(__file__).parent / "tiny.yaml"


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Path:
    """The sample dataset: 7 training and 2 validation images of 64 pixels."""
    return make_sample_dataset(tmp_path_factory.mktemp("data") / "sample", train=7, val=2, size=64)


def dataset_arguments(root: Path, *splits: str) -> list[str]:
    """Arguments of `train_net.py` for the sample dataset, by default with both splits."""
    folders = {"train": "training", "val": "validation"}
    return [
        argument
        for split in splits or folders
        for argument in (
            f"--{split}-json",
            str(root / "coco" / f"instances_{folders[split]}.json"),
            f"--{split}-images",
            str(root / "images" / folders[split]),
        )
    ]


@contextmanager
def own_logging() -> Iterator[None]:
    """Undo the logging set-up of a training, which would go on to write into its folder."""
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore", "focalnet_backbone")]
    before = [(logger.propagate, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    setup_logger.cache_clear()
    for logger, state in zip(loggers, before, strict=True):
        logger.propagate, logger.level, logger.handlers = state


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    with own_logging():
        yield


@pytest.fixture
def tiny_cfg():
    """The tiny Mask R-CNN's config."""
    return load_yaml(TINY)
