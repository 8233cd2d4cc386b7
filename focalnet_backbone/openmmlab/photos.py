"""Photos of every kind in mmcv as in the rest of this package."""

from __future__ import annotations

import functools

import mmcv
import mmcv.image.io
import numpy as np

from focalnet_backbone.features.images import decode_unusual


def read_photos_alike() -> None:
    """Let mmcv decode photos of unusual kinds (see `decode_unusual`) as `load_image` does; all others are left to it.

    By itself it shows what transparency hides, and gives nothing for what it cannot read.
    """
    original = mmcv.image.io.imfrombytes
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def imfrombytes(
        content: bytes, flag: str = "color", channel_order: str = "bgr", backend: str | None = None
    ) -> np.ndarray:
        try:
            image = decode_unusual(content) if flag == "color" else None
        except ValueError as error:
            raise OSError(str(error)) from error
        if image is None:
            return original(content, flag, channel_order, backend)
        return np.ascontiguousarray(image if channel_order == "rgb" else image[..., ::-1])

    for module in (mmcv.image.io, mmcv.image, mmcv):
        module.imfrombytes = imfrombytes
