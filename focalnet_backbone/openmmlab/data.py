"""The datasets of a config, and the files that they name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
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
