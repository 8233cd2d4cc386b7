"""Feature maps to vectors: one an image, or one a box."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import roi_align

from focalnet_backbone.system.inputs import read_json

POOLS = ("none", "gap", "roi")
"""Whole maps, their mean over all positions, or their mean over each of an image's boxes."""

_GRID = 7
"""Rows and columns at which RoIAlign looks at a box, as in Mask R-CNN's heads for boxes."""


@dataclass(frozen=True)
class Box:
    """A box of a COCO file: x, y, width and height in pixels of the photo as it is shown."""

    id: int
    category_id: int
    xywh: tuple[float, float, float, float]


class Boxes:
    """The boxes of a COCO file, by the photo's key.

    A key is met by `file_name`, with or without its suffix; else by the name without its folders, if only one image of
    the file has that.

    Args:
        path: the COCO file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no boxes of images.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            content = read_json(path, most=None)
            names = {int(image["id"]): str(image["file_name"]) for image in content["images"]}
            found = [_read_box(path, entry, names) for entry in content["annotations"]]
        except FileNotFoundError:
            raise FileNotFoundError(f"no COCO file {path}") from None
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} is no COCO file of boxes: {error!r}") from None
        if not found:
            raise ValueError(f"{path} holds no boxes")
        self._by_name: dict[str, list[Box]] = {}
        for name, box in found:
            self._by_name.setdefault(name, []).append(box)
        self._names: dict[str, str | None] = {}
        for name in names.values():
            for spelling in _spellings(name):
                # None for a spelling that two images share, which therefore means neither.
                self._names[spelling] = name if self._names.get(spelling, name) == name else None

    def of(self, key: str) -> list[Box]:
        """The boxes of a photo, in the file's order; none if it is not in the file."""
        for spelling in _spellings(key):
            name = self._names.get(spelling)
            if name is not None:
                return self._by_name.get(name, [])
        return []


def _read_box(path: str | Path, entry: Any, names: Mapping[int, str]) -> tuple[str, Box]:
    x, y, width, height = (float(value) for value in entry["bbox"])
    if not (width >= 0 and height >= 0 and abs(x) + abs(y) + width + height < float("inf")):
        raise ValueError(f"{path}: annotation {entry['id']} has the box {entry['bbox']}, which is none")
    return names[int(entry["image_id"])], Box(int(entry["id"]), int(entry.get("category_id", 0)), (x, y, width, height))


def _spellings(name: str) -> list[str]:
    path = PurePosixPath(name)
    return [name, str(path.with_suffix("")), path.name, path.stem]


def pool_image(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean of each map over its positions: `(N, C, H, W)` to `(N, C)`, summed in float32 at least."""
    return {name: _wide(feature).mean((2, 3)) for name, feature in features.items()}


def pool_boxes(features: Mapping[str, Tensor], strides: Mapping[str, int], boxes: list[Tensor]) -> dict[str, Tensor]:
    """The mean of each map over each box, by RoIAlign (Mask R-CNN, section 3, aligned to half pixels).

    Args:
        features: maps `(N, C, H, W)` by name.
        strides: their strides in pixels of the images.
        boxes: for each image `(K, 4)`, left, top, right and bottom in pixels of what the network saw.

    Returns:
        for each map `(sum of K, C)`, image after image.
    """
    pooled = {}
    for name, feature in features.items():
        wide = _wide(feature)
        places = [box.to(wide) for box in boxes]
        aligned = roi_align(wide, places, _GRID, 1 / strides[name], sampling_ratio=2, aligned=True)
        pooled[name] = aligned.mean((2, 3))
    return pooled


def corners(boxes: list[Box], scale: tuple[float, float]) -> Tensor:
    """Boxes as `(K, 4)`: left, top, right and bottom, in pixels of the photo shrunk by `scale` (of width, height)."""
    rows = torch.tensor([box.xywh for box in boxes], dtype=torch.float32).reshape(-1, 4)
    factors = torch.tensor([*scale, *scale])
    return torch.cat([rows[:, :2], rows[:, :2] + rows[:, 2:]], 1) * factors


def _wide(feature: Tensor) -> Tensor:
    return feature if feature.dtype == torch.float64 else feature.float()
