"""The datasets of a config, and the files that they name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
from mmengine.config import Config
from PIL import Image

from focalnet_backbone.features.images import check_photo

_READ_FROM = {"LoadImageFromFile": "img_path", "LoadAnnotations": "seg_map_path"}
"""Where transforms that read image files find the path; others may read files of other kinds."""


def leaf_datasets(dataset: Mapping) -> Iterator[Mapping]:
    """The datasets inside wrappers such as `RepeatDataset`, `ConcatDataset` and `MultiImageMixDataset`."""
    if "dataset" in dataset:
        yield from leaf_datasets(dataset["dataset"])
    elif "datasets" in dataset:
        for part in dataset["datasets"]:
            yield from leaf_datasets(part)
    else:
        yield dataset


def training_size(cfg: Config) -> tuple[int, int] | None:
    """Height and width in pixels of a config's training images: to which its pipeline crops or scales them, or its
    preprocessor pads them. None if none of these tells one size."""
    dataset = next(iter(leaf_datasets(cfg.train_dataloader.dataset)))
    for step in reversed(dataset.get("pipeline", ())):
        if step.get("crop_size"):
            return tuple(step["crop_size"])
        if step.get("scale"):
            width, height = step["scale"]
            return height, width
    preprocessor = cfg.model.get("data_preprocessor") or {}
    augments = preprocessor.get("batch_augments") or ()
    size = preprocessor.get("size") or next((step["size"] for step in augments if step.get("size")), None)
    return size and tuple(size)


def name_damaged_files(dataset: Any) -> None:
    """Let a built dataset's transforms that load files say which file they could not read.

    mmcv names a damaged image, but Pillow, which reads the labels of mmsegmentation, does not.
    """
    for part in getattr(dataset, "datasets", [getattr(dataset, "dataset", None)]):
        if part is not None:
            name_damaged_files(part)
    pipeline = getattr(dataset, "pipeline", None)
    for i, transform in enumerate(getattr(pipeline, "transforms", ())):
        if type(transform).__name__.startswith("Load"):
            pipeline.transforms[i] = _NamingLoader(transform)


class _NamingLoader:
    def __init__(self, transform: Any) -> None:
        self.transform = transform
        self.reads = _READ_FROM.get(type(transform).__name__)

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any] | None:
        path = sample.get(self.reads) if self.reads else None
        try:
            if isinstance(path, str) and Path(path).is_file():
                check_photo(path)
        except ValueError as error:
            raise OSError(str(error)) from error
        try:
            return self.transform(sample)
        except (OSError, MemoryError, cv2.error, Image.DecompressionBombError) as error:
            path = sample.get("seg_map_path") or sample.get("img_path")
            raise OSError(f"{path} cannot be read: {error}") from error

    def __repr__(self) -> str:
        return repr(self.transform)
