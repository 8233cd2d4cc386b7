"""Photos of every kind in detectron2 as in the rest of this package."""

from __future__ import annotations

import functools

import numpy as np
from detectron2.data import detection_utils
from detectron2.modeling import test_time_augmentation
from detectron2.utils.file_io import PathManager

from focalnet_backbone.features.images import load_image


def read_photos_alike() -> None:
    """Let detectron2 read colour images, in training and prediction, by `load_image`.

    Its own reader makes 16-bit grey white, and shows what transparency hides. Labels are left to it.
    """
    original = detection_utils.read_image
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def read_image(file_name: str, format: str | None = None) -> np.ndarray:
        if format not in ("RGB", "BGR"):
            return original(file_name, format)
        image = load_image(PathManager.get_local_path(str(file_name))).permute(1, 2, 0).numpy()
        return np.ascontiguousarray(image[..., ::-1] if format == "BGR" else image)

    for module in (detection_utils, test_time_augmentation):
        module.read_image = read_image
