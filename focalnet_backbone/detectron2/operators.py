"""The module `detectron2._C`, written with torchvision and PyTorch, for a detectron2 that lacks its compiled part.

It holds the operators of rotated boxes, which it registers as `torch.ops.detectron2` too, and the two functions by
which `detectron2.layers` convolves deformably. They run on whatever device their inputs are on. Any other name is a
function that raises `NotImplementedError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
import torchvision
from torch import Tensor

from focalnet_backbone.system.stand_ins import missing_operator

CURE = 'pip install --no-build-isolation "git+https://github.com/facebookresearch/detectron2.git"'
CHUNK = 65536
"""Pairs of rotated boxes that are intersected at a time; their corners and crossings take about 40 MB."""


def __getattr__(name: str) -> Callable[..., NoReturn]:
    """A stand-in for an operator that is not here."""
    return missing_operator(__name__, "detectron2", name, CURE)


def get_compiler_version() -> str:
    """What `detectron2.utils.collect_env` reports as detectron2's compiler."""
    return "n/a (operators of focalnet_backbone)"


def get_cuda_version() -> str:
    """What `detectron2.utils.collect_env` reports as the CUDA that detectron2 was compiled with."""
    return "n/a"


def has_cuda() -> bool:
    """Whether this module holds kernels compiled for CUDA."""
    return False


def _corners(boxes: Tensor) -> Tensor:
    """The corners `(N, 4, 2)` of rotated boxes `(N, 5)`, in one sense of rotation."""
    center, size, angle = boxes[:, None, :2], boxes[:, None, 2:4], boxes[:, None, 4].deg2rad()
    unit = boxes.new_tensor([[-0.5, -0.5], [-0.5, 0.5], [0.5, 0.5], [0.5, -0.5]])
    x, y = (unit * size).unbind(-1)
    # Angles count counter-clockwise, and y points down.
    return center + torch.stack([x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()], -1)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _inside(points: Tensor, quads: Tensor) -> Tensor:
    """Whether points `(N, P, 2)` are in, or on the border of, rectangles `(N, 4, 2)`."""
    origin = quads[:, None, 0]
    result = torch.ones(points.shape[:2], dtype=torch.bool, device=points.device)
    for side in (quads[:, None, 1] - origin, quads[:, None, 3] - origin):
        along = ((points - origin) * side).sum(-1)
        length = (side * side).sum(-1)
        result &= (along >= -1e-9 * length) & (along <= (1 + 1e-9) * length)
    return result


def _overlap_area(a: Tensor, b: Tensor) -> Tensor:
    """Area `(N,)` of the intersections of rectangles with the corners `(N, 4, 2)`.

    The intersection is convex; its corners are those of one rectangle in the other and the crossings of their sides.
    """
    side_a, side_b = a.roll(-1, 1) - a, b.roll(-1, 1) - b
    between = b[:, None] - a[:, :, None]
    parallel = _cross(side_a[:, :, None], side_b[:, None])
    divisor = torch.where(parallel.abs() < 1e-14, torch.inf, parallel)
    t = _cross(between, side_b[:, None].expand_as(between)) / divisor
    u = _cross(between, side_a[:, :, None].expand_as(between)) / divisor
    crosses = (t >= 0) & (t <= 1) & (u >= 0) & (u <= 1) & divisor.isfinite()
    crossings = a[:, :, None] + t[..., None] * side_a[:, :, None]
    points = torch.cat([crossings.flatten(1, 2), a, b], 1)
    valid = torch.cat([crosses.flatten(1), _inside(a, b), _inside(b, a)], 1)
    # What is no corner takes the place of one that is, where it adds no area.
    first = points.gather(1, valid.int().argmax(1)[:, None, None].expand(-1, 1, 2))
    points = torch.where(valid[..., None], points, first)
    center = (points * valid[..., None]).sum(1, keepdim=True) / valid.sum(1).clamp(min=1)[:, None, None]
    points = points - center
    order = torch.atan2(points[..., 1], points[..., 0]).argsort(1)
    points = points.gather(1, order[..., None].expand_as(points))
    area = _cross(points, points.roll(-1, 1)).sum(1).abs() / 2
    return torch.where(valid.any(1), area, 0.0)


def _paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union `(N,)` of rotated boxes `(N, 5)` with those of the same index."""
    results = []
    for first, second in zip(a.double().split(CHUNK), b.double().split(CHUNK), strict=True):
        # Around their middle, as large coordinates would cost digits.
        middle = torch.nn.functional.pad((first[:, :2] + second[:, :2]) / 2, (0, 3))
        shared = _overlap_area(_corners(first - middle), _corners(second - middle))
        union = first[:, 2] * first[:, 3] + second[:, 2] * second[:, 3] - shared
        results.append(torch.where(shared > 0, shared / union, 0.0))
    return torch.cat(results) if results else a.new_zeros(0)


def box_iou_rotated(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union `(N, M)` of rotated boxes, each `(x_center, y_center, width, height, degrees)`.

    Args:
        boxes1: `(N, 5)`, angles counter-clockwise.
        boxes2: `(M, 5)`.
    """
    result = torch.zeros(len(boxes1), len(boxes2), dtype=torch.float32, device=boxes1.device)
    reach = [boxes[:, 2:4].float().norm(dim=1) / 2 for boxes in (boxes1, boxes2)]
    apart = (boxes1[:, None, :2].float() - boxes2[None, :, :2].float()).norm(dim=-1)
    near = apart <= (reach[0][:, None] + reach[1]) * 1.0001
    i, j = near.nonzero(as_tuple=True)
    result[i, j] = _paired_iou(boxes1[i], boxes2[j]).float()
    return result


def nms_rotated(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices `(K,)` of the rotated boxes `(N, 5)` that non-maximum suppression keeps, best first."""
    left = scores.argsort(descending=True, stable=True)
    kept = []
    while len(left):
        best, left = left[:1], left[1:]
        kept.append(best)
        left = left[box_iou_rotated(dets[best], dets[left])[0] <= iou_threshold]
    return torch.cat(kept) if kept else left


def roi_align_rotated_forward(
    input: Tensor, rois: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int, sampling_ratio: int
) -> Tensor:
    """Pool rotated regions by bilinear sampling.

    Args:
        input: `(N, C, H, W)`.
        rois: `(K, 6)` as image index, x_center, y_center, width, height, degrees.
        spatial_scale: pixels of the map per unit of `rois`.
        pooled_height, pooled_width: size of the result.
        sampling_ratio: samples along each side of a bin; 0 takes as many as the bin has pixels.

    Returns:
        `(K, C, pooled_height, pooled_width)`.
    """
    pooled = (pooled_height, pooled_width)
    results = [_pool_rotated(input, roi, spatial_scale, pooled, sampling_ratio) for roi in rois.to(input)]
    return torch.stack(results) if results else input.new_zeros(0, input.shape[1], *pooled)


def _pool_rotated(input: Tensor, roi: Tensor, scale: float, pooled: tuple[int, int], ratio: int) -> Tensor:
    """Pool one region `(6,)` to `(C, *pooled)`."""
    height, width = input.shape[2:]
    center_x, center_y = roi[1] * scale - 0.5, roi[2] * scale - 0.5
    size = (roi[4] * scale, roi[3] * scale)
    samples = [ratio or max(1, int((s / p).ceil())) for s, p in zip(size, pooled, strict=True)]
    y, x = (
        ((torch.arange(p * n).to(roi) + 0.5) / (p * n) - 0.5) * s for p, n, s in zip(pooled, samples, size, strict=True)
    )
    cos, sin = roi[5].deg2rad().cos(), roi[5].deg2rad().sin()
    at_y = y[:, None] * cos - x * sin + center_y
    at_x = x * cos + y[:, None] * sin + center_x
    # Beyond a pixel outside there is nothing; up to there, the border goes on.
    there = (at_y >= -1) & (at_y <= height) & (at_x >= -1) & (at_x <= width)
    at_y, at_x = at_y.clamp(0, height - 1), at_x.clamp(0, width - 1)
    top, left = at_y.floor().long(), at_x.floor().long()
    down, right = at_y - top, at_x - left
    features = input[int(roi[0])]
    pooled_map = 0
    for row, weight_y in ((top, 1 - down), ((top + 1).clamp(max=height - 1), down)):
        for column, weight_x in ((left, 1 - right), ((left + 1).clamp(max=width - 1), right)):
            pooled_map = pooled_map + features[:, row, column] * (weight_y * weight_x * there)
    bins = pooled_map.unflatten(1, (pooled[0], samples[0])).unflatten(3, (pooled[1], samples[1]))
    return bins.mean((2, 4))


def roi_align_rotated_backward(
    grad: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    batch_size: int,
    channels: int,
    height: int,
    width: int,
    sampling_ratio: int,
) -> Tensor:
    """The gradient `(N, C, H, W)` of `roi_align_rotated_forward`, from `grad` `(K, C, pooled_height, pooled_width)`."""
    # The operator is linear in its input: where that is does not matter.
    input = grad.new_zeros(batch_size, channels, height, width, requires_grad=True)
    if not len(rois):
        return input.detach()
    with torch.enable_grad():
        output = roi_align_rotated_forward(input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio)
    return torch.autograd.grad(output, input, grad)[0]


_SCHEMAS = {
    nms_rotated: "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    box_iou_rotated: "(Tensor boxes1, Tensor boxes2) -> Tensor",
    roi_align_rotated_forward: "(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
    "int sampling_ratio) -> Tensor",
    roi_align_rotated_backward: "(Tensor grad, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
    "int batch_size, int channels, int height, int width, int sampling_ratio) -> Tensor",
}
_library = torch.library.Library("detectron2", "FRAGMENT")
for _operator, _schema in _SCHEMAS.items():
    _library.define(_operator.__name__ + _schema)
    _library.impl(_operator.__name__, _operator, "CompositeImplicitAutograd")


def deform_conv(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    deformable_groups: int = 1,
    im2col_step: int = 64,
) -> Tensor:
    """Deformable convolution (arXiv 1703.06211), as `detectron2.layers.deform_conv.deform_conv` is called.

    Groups follow from the shapes of `weight` and `offset`; `im2col_step` is a memory setting that torchvision has not.
    """
    return torchvision.ops.deform_conv2d(input, offset, weight, None, stride, padding, dilation)


def modulated_deform_conv(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    deformable_groups: int = 1,
) -> Tensor:
    """Modulated deformable convolution (arXiv 1811.11168), as detectron2's function of this name is called."""
    return torchvision.ops.deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask)
