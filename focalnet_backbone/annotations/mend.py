"""What COCO's own tools need of an annotation file and its author left out, put in where there is no doubt about it."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import IO, Any

import pycocotools.coco
import pycocotools.mask as mask_tools
from pycocotools.coco import COCO

_create_index = COCO.createIndex


def mend_as_loaded() -> None:
    """Let everything that reads COCO's files through pycocotools (detectron2, mmdetection) read them mended.

    A file that lacks nothing is read as it is.
    """
    COCO.createIndex = _create_mended_index


@contextlib.contextmanager
def read_already(path: str, content: Any) -> Iterator[None]:
    """Within, pycocotools takes a file's content from here instead of reading it again; it may change the content."""

    def load(file: IO[str]) -> Any:
        return content if os.path.samefile(file.name, path) else json.load(file)  # noqa: TID251

    pycocotools.coco.json = SimpleNamespace(load=load, loads=json.loads)  # noqa: TID251
    try:
        yield
    finally:
        pycocotools.coco.json = json


def mend(content: Any) -> None:
    """Put in, in place, what annotations lack: `iscrowd` 0, `area` by the outline, the list around a flat polygon.

    Annotations numbered from 0 get ids from 1: to COCO's evaluation, 0 means that an object was not found.
    """
    annotations = content.get("annotations") if isinstance(content, dict) else None
    annotations = [a for a in annotations if isinstance(a, dict)] if isinstance(annotations, list) else []
    for annotation in annotations:
        annotation.setdefault("iscrowd", 0)
        if is_flat_polygon(annotation.get("segmentation")):
            annotation["segmentation"] = [annotation["segmentation"]]
        if lacks_area(annotation):
            area = _area(annotation)
            if area:
                annotation["area"] = area
    ids = [annotation.get("id") for annotation in annotations]
    if 0 in ids and all(type(id) is int for id in ids):
        for annotation in annotations:
            annotation["id"] += 1


def is_flat_polygon(outline: Any) -> bool:
    """Whether an outline is one polygon `[x, y, x, y, ...]` where COCO has a list of polygons."""
    return is_polygon(outline) and type(outline[0]) in (int, float)


def is_polygon(points: Any) -> bool:
    """Whether it is `[x, y, x, y, x, y, ...]`: three points at least. COCO's tools leave out others."""
    return isinstance(points, list) and len(points) >= 6 and len(points) % 2 == 0


def lacks_area(annotation: dict) -> bool:
    """Whether an annotation has no area, or one that cannot be: not a number above 0."""
    area = annotation.get("area")
    return type(area) not in (int, float) or not 0 < area < math.inf


def _area(annotation: dict) -> float:
    """Area in pixels by an annotation's outline, else by its box."""
    outline, box = annotation.get("segmentation"), annotation.get("bbox")
    try:
        if isinstance(outline, dict):
            rle = mask_tools.frPyObjects(outline, *outline["size"]) if isinstance(outline["counts"], list) else outline
            area = float(mask_tools.area(rle))
        else:
            area = sum(map(_area_of_polygon, filter(is_polygon, outline or [])))
        return area or float(box[2] * box[3])
    except Exception:  # What is wrong with the rest of it, the check tells.
        return 0.0


def _area_of_polygon(points: list[float]) -> float:
    """By the shoelace formula."""
    x, y = points[::2], points[1::2]
    return abs(sum(x[i - 1] * y[i] - x[i] * y[i - 1] for i in range(len(x)))) / 2


def _create_mended_index(self: COCO) -> None:
    mend(self.dataset)
    _create_index(self)
