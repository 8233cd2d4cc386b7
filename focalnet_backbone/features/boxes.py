"""A detector's steps with boxes as arithmetic of fixed sizes, which an exported file holds.

Frameworks let the number of boxes follow the data at each step, which exporters cannot. Here a step keeps as many
places as it may have boxes at most; an empty place has the score `NONE`, below all others, and is left out at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms, roi_align

from focalnet_backbone.features.preparation import own_symbol, sides

NONE = -1e4
"""Score of a place that holds no box."""


@dataclass(frozen=True)
class RoiLayer:
    """How regions are read from one map of a pyramid.

    Attributes:
        size: rows and columns of the result.
        scale: pixels of the map per pixel of the image.
        samples: along each side of a bin; 0 takes as many as the bin has pixels.
        aligned: whether half a pixel is taken off the coordinates.
    """

    size: tuple[int, int]
    scale: float
    samples: int
    aligned: bool


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Zeros on the right and bottom of `(N, C, H, W)`, to a size that exporters know to be a multiple."""
    if multiple <= 1:
        return x
    height, width = sides(x, 2, 3)
    rows, columns = (own_symbol((side + multiple - 1) // multiple) * multiple for side in (height, width))
    return F.pad(x, (0, columns - width, 0, rows - height))


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes `(n, 4)` cut at the borders of an image (height, width)."""
    height, width = size
    left, top, right, bottom = boxes.unbind(1)
    x, y = (left.clamp(0, width), right.clamp(0, width)), (top.clamp(0, height), bottom.clamp(0, height))
    return torch.stack([x[0], y[0], x[1], y[1]], dim=1)


def scale_boxes(boxes: Tensor, size: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """Boxes `(n, 4)` in an image of a size (height, width), in the pixels of another one."""
    by_axis = wanted[1] / size[1], wanted[0] / size[0]
    return torch.stack([side * by_axis[i % 2] for i, side in enumerate(boxes.unbind(1))], dim=1)


def are_boxes(boxes: Tensor, smallest: float = 0.0) -> Tensor:
    """Which of `(n, 4)` are wider and higher than `smallest`."""
    return (boxes[:, 2] - boxes[:, 0] > smallest) & (boxes[:, 3] - boxes[:, 1] > smallest)


def top(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` highest scores and their rows, which lie behind the last where there are too few."""
    return F.pad(scores, (0, count), value=NONE).topk(count)


def take(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Rows of `top`, zeros for those behind the last."""
    return F.pad(values, (*(0, 0) * (values.dim() - 1), 0, count))[rows]


def best_of_kinds(boxes: Tensor, scores: Tensor, kinds: Tensor, threshold: float, count: int) -> tuple[Tensor, Tensor]:
    """The best boxes that non-maximum suppression leaves, of each kind (a class, a level of a pyramid) by itself.

    Args:
        boxes: `(n, 4)`.
        scores: `(n,)`, `NONE` where there is no box.
        kinds: `(n,)`.
        threshold: a box that overlaps a better one by more than this is dropped.
        count: how many places there are.

    Returns:
        Scores `(count,)`, the best first, and the rows of their boxes, for `take`.
    """
    apart = F.pad(boxes, (0, 0, 0, 1)).max() + 1
    kept = nms(boxes + (kinds.to(boxes) * apart)[:, None], scores, threshold)
    return top(torch.where(torch.zeros_like(scores).scatter(0, kept, 1.0) > 0, scores, NONE), count)


def best_of_classes(
    boxes: Tensor, scores: Tensor, known: Tensor, *, lowest: float, threshold: float, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The objects among regions that have a score for each class.

    Args:
        boxes: `(n, classes, 4)`.
        scores: `(n, classes)`.
        known: `(n,)`, which places hold a region.
        lowest: scores up to this are left out.
        threshold: of non-maximum suppression.
        count: how many places there are.

    Returns:
        Boxes `(count, 4)`, scores and labels `(count,)`, the best first.
    """
    classes = scores.shape[1]
    chosen = ((scores > lowest) & known[:, None]).flatten().nonzero()[:, 0]
    box, score, label = boxes.reshape(-1, 4)[chosen], scores.flatten()[chosen], chosen % classes
    best, rows = best_of_kinds(box, score, label, threshold, count)
    return take(box, rows, count), best, take(label, rows, count)


def pool_regions(maps: Sequence[Tensor], boxes: Tensor, level: Tensor, layers: Sequence[RoiLayer]) -> Tensor:
    """Regions `(n, C, rows, columns)` of one image's pyramid, each of the map whose number `level` `(n,)` gives."""
    rois = F.pad(boxes, (1, 0))
    pooled = None
    for number, (features, layer) in enumerate(zip(maps, layers, strict=True)):
        found = roi_align(features, rois, layer.size, layer.scale, layer.samples, aligned=layer.aligned)
        pooled = found if pooled is None else torch.where((level == number)[:, None, None, None], found, pooled)
    return pooled


def masks_of_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Probabilities `(n, M, M)` of masks whose logits `(n, classes, M, M)` are each class's own, or one for all."""
    if logits.shape[1] == 1:
        return logits[:, 0].sigmoid()
    return logits[torch.arange(labels.shape[0]), labels].sigmoid()
