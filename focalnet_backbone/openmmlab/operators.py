"""The module `mmcv._ext`, written with torchvision and PyTorch, for an mmcv that lacks its compiled part.

It holds the operators that UPerNet, Mask R-CNN, Cascade R-CNN, ATSS, Sparse R-CNN, Mask2Former and DINO call, with
the signatures that `mmcv.ops` calls them by: results often go into a tensor that the caller passes. They run on
whatever device their inputs are on, and compute in float32 what they are given in half precision. Any other name is a
function that raises `NotImplementedError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from focalnet_backbone.system.stand_ins import missing_operator

CURE = "pip uninstall mmcv-lite, pip install openmim, mim install 'mmcv>=2.0.0,<2.2.0'"
AVERAGE_POOLING = 1
LINEAR, GAUSSIAN = 1, 2


def __getattr__(name: str) -> Callable[..., NoReturn]:
    """A stand-in for an operator that is not here, since `mmcv.ops` wants every name when it is imported."""
    return missing_operator(__name__, "mmcv", name, CURE)


def get_compiler_version() -> str:
    """What `mmcv.utils.collect_env` reports as mmcv's compiler, and as its CUDA compiler."""
    return "n/a (operators of focalnet_backbone)"


get_compiling_cuda_version = get_compiler_version


def _full_precision(tensor: Tensor) -> Tensor:
    """The tensor in float32 if it is in half precision, which torchvision's operators do not all take."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Indices `(K,)` of the boxes that non-maximum suppression keeps, best first.

    Args:
        boxes: `(N, 4)` as x1, y1, x2, y2 in pixels.
        scores: `(N,)`.
        iou_threshold: a box that overlaps a better one by more than this is dropped.
        offset: 0 or 1, added to a box's width and height.
    """
    boxes = _full_precision(boxes)
    return torchvision.ops.nms(boxes + boxes.new_tensor([0, 0, offset, offset]), scores.to(boxes), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int = 0,
) -> Tensor:
    """Soft-NMS (arXiv 1704.04503): lower the scores of overlapping boxes instead of dropping the boxes.

    Args:
        boxes: `(N, 4)` as x1, y1, x2, y2 in pixels.
        scores: `(N,)`.
        dets: `(N, 5)`; the kept boxes and their new scores are written into its first K rows, best first.
        iou_threshold: overlap from which the naive and linear methods act.
        sigma: width of the Gaussian method.
        min_score: boxes whose score falls below this are dropped.
        method: 0 drops, 1 scales by 1 - IoU, 2 scales by exp(-IoU^2 / sigma).
        offset: 0 or 1, added to a box's width and height.

    Returns:
        Indices `(K,)` of the kept boxes.
    """
    extended = boxes + boxes.new_tensor([0, 0, offset, offset])
    scores = scores.clone()
    left = torch.arange(len(boxes), device=boxes.device)
    kept = []
    while len(left):
        best = left[scores[left].argmax()]
        dets[len(kept)] = torch.cat([boxes[best], scores[best, None]])
        kept.append(best)
        left = left[left != best]
        overlap = torchvision.ops.box_iou(extended[best, None], extended[left])[0]
        if method == GAUSSIAN:
            decay = torch.exp(-(overlap**2) / sigma)
        else:
            decay = torch.where(overlap >= iou_threshold, 1 - overlap if method == LINEAR else 0.0, 1.0)
        scores[left] *= decay
        left = left[scores[left] >= min_score]
    return torch.stack(kept) if kept else left


def _check_average_pooling(pool_mode: int) -> None:
    if pool_mode != AVERAGE_POOLING:
        raise NotImplementedError("RoIAlign with pool_mode='max' needs mmcv's compiled part; 'avg' does not")


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Pool each region by bilinear sampling (Mask R-CNN, arXiv 1703.06870), into `output`.

    Args:
        input: `(N, C, H, W)`.
        rois: `(K, 5)` as image index, x1, y1, x2, y2.
        output: `(K, C, aligned_height, aligned_width)`, overwritten.
        argmax_y: of max pooling, which is not supported; `argmax_x` likewise.
        spatial_scale: pixels of the map per unit of `rois`.
        sampling_ratio: samples along each side of a bin; 0 takes as many as the bin has pixels.
        pool_mode: 1, the average of the samples.
        aligned: whether half a pixel is taken off the coordinates.

    Raises:
        NotImplementedError: max pooling.
    """
    _check_average_pooling(pool_mode)
    features = _full_precision(input)
    size = (aligned_height, aligned_width)
    output.copy_(
        torchvision.ops.roi_align(features, rois.to(features), size, spatial_scale, sampling_ratio, bool(aligned))
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """The gradient of `roi_align_forward`, from `grad_output` `(K, C, h, w)` into `grad_input` `(N, C, H, W)`."""
    _check_average_pooling(pool_mode)
    grad = _full_precision(grad_output)
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            grad,
            rois.to(grad),
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            bool(aligned),
        )
    )


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159).

    Args:
        value: `(N, sum of H_l * W_l, heads, channels)`.
        value_spatial_shapes: `(levels, 2)` as H_l, W_l.
        value_level_start_index: `(levels,)`, where each level starts; follows from the shapes.
        sampling_locations: `(N, queries, heads, levels, points, 2)` as x, y in [0, 1].
        attention_weights: `(N, queries, heads, levels, points)`.
        im2col_step: a memory setting of the compiled operator, not used.

    Returns:
        `(N, queries, heads * channels)`.
    """
    batch, _, heads, channels = value.shape
    _, queries, _, levels, points, _ = sampling_locations.shape
    shapes = value_spatial_shapes.tolist()
    dtype = value.dtype
    value, sampling_locations, attention_weights = map(_full_precision, (value, sampling_locations, attention_weights))
    maps = value.permute(0, 2, 3, 1).flatten(0, 1).split([height * width for height, width in shapes], dim=-1)
    grids = sampling_locations.transpose(1, 2).flatten(0, 1) * 2 - 1
    weights = attention_weights.transpose(1, 2).reshape(batch * heads, 1, queries, levels, points)
    attended = 0
    for level, (height, width) in enumerate(shapes):
        sampled = F.grid_sample(maps[level].unflatten(-1, (height, width)), grids[:, :, level], align_corners=False)
        attended = attended + (sampled * weights[:, :, :, level]).sum(-1)
    return attended.view(batch, heads * channels, queries).transpose(1, 2).contiguous().to(dtype)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """The gradients of `ms_deform_attn_forward` for its three float inputs, into the tensors given for them."""
    inputs = [tensor.detach().requires_grad_() for tensor in (value, sampling_locations, attention_weights)]
    with torch.enable_grad():
        output = ms_deform_attn_forward(
            inputs[0], value_spatial_shapes, value_level_start_index, inputs[1], inputs[2], im2col_step
        )
    grads = torch.autograd.grad(output, inputs, grad_output)
    for target, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads, strict=True):
        target.copy_(grad)


def _focal_terms(input: Tensor, target: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Factors `(N, C)` of the loss where a class is the target, and where it is not."""
    is_target = F.one_hot(target, input.shape[1] + 1)[:, :-1].to(input)
    # Background is class C: it has no class weight.
    class_weight = F.pad(weight, (0, 1), value=1.0)[target, None] if len(weight) else 1.0
    return alpha * is_target * class_weight, (1 - alpha) * (1 - is_target) * class_weight


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Sigmoid focal loss (RetinaNet, arXiv 1708.02002) of each class, into `output`.

    Args:
        input: logits `(N, C)`.
        target: class indices `(N,)`; C is background.
        weight: class weights `(C,)`, or `(0,)` for none.
        output: `(N, C)`, overwritten.
        gamma: focusing parameter.
        alpha: weight of the target class; the others get 1 - alpha.
    """
    input = _full_precision(input)
    positive, negative = _focal_terms(input, target, weight, alpha)
    p = input.sigmoid()
    output.copy_(-positive * (1 - p) ** gamma * F.logsigmoid(input) - negative * p**gamma * F.logsigmoid(-input))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """The derivative of `sigmoid_focal_loss_forward` by the logits, into `grad_input` `(N, C)`."""
    input = _full_precision(input)
    positive, negative = _focal_terms(input, target, weight, alpha)
    p = input.sigmoid()
    grad_input.copy_(
        positive * (1 - p) ** gamma * (gamma * p * F.logsigmoid(input) - (1 - p))
        + negative * p**gamma * (p - gamma * (1 - p) * F.logsigmoid(-input))
    )
