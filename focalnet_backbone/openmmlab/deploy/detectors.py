"""Detectors of mmdetection as plain modules: a head upon the pyramid, or regions that one or several heads refine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import Tensor, nn

from focalnet_backbone.features.boxes import (
    NONE,
    RoiLayer,
    are_boxes,
    best_of_classes,
    best_of_kinds,
    clip,
    masks_of_labels,
    pad_to_multiple,
    pool_regions,
    scale_boxes,
    take,
    top,
)
from focalnet_backbone.features.preparation import Preparation, PreparePhotos, sides
from focalnet_backbone.openmmlab.deploy.photos import read_padding
from focalnet_backbone.openmmlab.deploy.transformers import QueriedBoxes

MASK_THRESHOLD = 0.5
"""Probability from which a pixel is of an object, by which an exported file's masks are pasted."""


class DetectorGraph(nn.Module):
    """A detector of mmdetection for one photo: its `predict`, with a fixed number of places for boxes.

    Args:
        model: the detector.
        preparation: what is done to the photo.

    Raises:
        ValueError: it has a part that this cannot express.
    """

    task = "detection"
    one_at_a_time = True

    def __init__(self, model: nn.Module, preparation: Preparation) -> None:
        super().__init__()
        self.prepare = PreparePhotos(preparation)
        self.multiple = read_padding(model.data_preprocessor)
        self.backbone, self.neck = model.backbone, model.neck if model.with_neck else nn.Identity()
        self.head = _head_of(model)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what `forward` gives."""
        return ("boxes", "scores", "labels", *(("masks",) if self.head.has_masks else ()))

    def forward(self, photos: Tensor) -> tuple[Tensor, ...]:
        """Find the objects in one photo `(1, H, W, 3)`, uint8, RGB.

        Returns:
            Boxes `(K, 4)` in pixels of the photo (left, top, right, bottom), scores `(K,)`, best first, labels `(K,)`,
            and, of a model with masks, probabilities `(K, M, M)` on a grid over each box.
        """
        x = self.prepare(photos)
        size = sides(x, 2, 3)
        maps = self.neck(self.backbone(pad_to_multiple(x, self.multiple)))
        boxes, scores, *others = self.head(maps, size)
        rows = (scores > NONE).nonzero()[:, 0]
        boxes = scale_boxes(boxes, size, sides(photos, 1, 2))
        return tuple(values[rows] for values in (boxes, scores, *others))


def _head_of(model: nn.Module) -> nn.Module:
    """What finds boxes in the pyramid of a detector."""
    if getattr(model, "with_roi_head", False):
        return _RefinedRegions(model)
    return QueriedBoxes(model) if isinstance(model, DetectionTransformer) else _DenseBoxes(model)


class _DenseBoxes(nn.Module):
    """A head that tells a box and its classes at every place of the pyramid: RetinaNet, ATSS, FCOS.

    Raises `ValueError` for a head that chooses boxes in a way of its own.
    """

    has_masks = False

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.head, self.config = model.bbox_head, model.test_cfg
        common = ("predict_by_feat", "_predict_by_feat_single", "_bbox_post_process")
        if any(getattr(type(self.head), name, None) is not getattr(BaseDenseHead, name) for name in common):
            raise ValueError(f"a {type(self.head).__name__} of mmdetection cannot be exported")
        _check_coder(self.head)
        _check_choice(self.config)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes `(n, 4)` in an input of a size, scores and labels `(n,)`, the best first."""
        logits, deltas, *factors = self.head(maps)
        found = [
            self._of_level(level, *(values[level][0] for values in (logits, deltas, *factors)))
            for level in range(len(logits))
        ]
        boxes, scores, labels = map(torch.cat, zip(*found, strict=True))
        boxes = clip(boxes, size)
        smallest = self.config.get("min_bbox_size", -1)
        if smallest >= 0:
            scores = torch.where(are_boxes(boxes, smallest), scores, NONE)
        count = self.config.max_per_img
        best, rows = best_of_kinds(boxes, scores, labels, self.config.nms.iou_threshold, count)
        return take(boxes, rows, count), best, take(labels, rows, count)

    def _of_level(
        self, level: int, logits: Tensor, deltas: Tensor, factors: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores and labels of the best places of a map, of whose size `logits` `(A * classes, H, W)` are."""
        head, count = self.head, self.config.nms_pre
        scores = logits.permute(1, 2, 0).reshape(-1, head.cls_out_channels)
        scores = scores.sigmoid() if head.use_sigmoid_cls else scores.softmax(-1)[:, :-1]
        classes = scores.shape[1]
        best, places = top(torch.where(scores > self.config.get("score_thr", 0), scores, NONE).flatten(), count)
        rows = places // classes
        box = _decode(head, level, logits.shape[1:], deltas, rows, count)
        if factors is not None:
            weight = take(factors.permute(1, 2, 0).flatten().sigmoid(), rows, count)
            best = torch.where(best > NONE, best * weight, NONE)
        return box, best, places % classes


class _RefinedRegions(nn.Module):
    """Regions of a proposal network, which one head refines, or each of several in turn: R-CNN with FPN, Cascade R-CNN.

    Raises `ValueError` for a part of another kind.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.rpn, self.heads = model.rpn_head, model.roi_head
        _check_regions(self.rpn, self.heads)
        self.has_masks = self.heads.with_mask

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Boxes `(n, 4)` in an input of a size, scores and labels `(n,)`, the best first, and masks if there are."""
        boxes, known = self._propose(maps, size)
        extractors, heads = map(_stages, (self.heads.bbox_roi_extractor, self.heads.bbox_head))
        total = 0
        for number, (extractor, head) in enumerate(zip(extractors, heads, strict=True), start=1):
            logits, deltas = head(_pool(extractor, maps, boxes))
            total = total + logits
            if number < len(heads):
                label = logits[:, :-1].argmax(1)
                boxes = clip(head.regress_by_class(boxes, label, deltas, {"img_shape": None}), size)
        scores = (total / len(heads)).softmax(-1)[:, :-1]
        kinds = deltas.shape[1] // 4
        repeated = boxes[:, None].expand(-1, kinds, -1).reshape(-1, 4)
        boxes = clip(head.bbox_coder.decode(repeated, deltas.reshape(-1, 4)), size)
        config = self.heads.test_cfg
        found = best_of_classes(
            boxes.reshape(-1, kinds, 4).expand(-1, scores.shape[1], -1),
            scores,
            known,
            lowest=config.score_thr,
            threshold=config.nms.iou_threshold,
            count=config.max_per_img,
        )
        return (*found, self._masks(maps, found[0], found[2])) if self.has_masks else found

    def _propose(self, maps: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The region proposals `(P, 4)`, and which places hold one."""
        rpn, config = self.rpn, self.rpn.test_cfg
        boxes, scores, levels = [], [], []
        for level, (logits, deltas) in enumerate(zip(*rpn(maps), strict=True)):
            score = logits[0].permute(1, 2, 0).reshape(-1, rpn.cls_out_channels)
            score = score.sigmoid() if rpn.use_sigmoid_cls else score.softmax(-1)[:, :-1]
            best, rows = top(score[:, 0], config.nms_pre)
            boxes.append(_decode(rpn, level, logits.shape[2:], deltas[0], rows, config.nms_pre))
            scores.append(best)
            levels.append(torch.full_like(rows, level))
        box, score = clip(torch.cat(boxes), size), torch.cat(scores)
        smallest = config.get("min_bbox_size", -1)
        if smallest >= 0:
            score = torch.where(are_boxes(box, smallest), score, NONE)
        count = config.max_per_img
        best, rows = best_of_kinds(box, score, torch.cat(levels), config.nms.iou_threshold, count)
        return take(box, rows, count), best > NONE

    def _masks(self, maps: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """The masks of objects, averaged over the heads."""
        stages = zip(*map(_stages, (self.heads.mask_roi_extractor, self.heads.mask_head)), strict=True)
        found = [masks_of_labels(head(_pool(extractor, maps, boxes)), labels) for extractor, head in stages]
        return sum(found) / len(found)


def _decode(head: nn.Module, level: int, size: Sequence[int], deltas: Tensor, rows: Tensor, count: int) -> Tensor:
    """The boxes `(count, 4)` of some rows of a map, from its deltas `(A * 4, H, W)`."""
    coder = head.bbox_coder
    priors = head.prior_generator.single_level_grid_priors(tuple(size), level, deltas.dtype, deltas.device)
    deltas = deltas.permute(1, 2, 0).reshape(-1, coder.encode_size)
    return coder.decode(take(priors, rows, count), take(deltas, rows, count))


def _pool(extractor: SingleRoIExtractor, maps: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """What the extractor gives, of one image."""
    layers = [
        RoiLayer(part.output_size, part.spatial_scale, part.sampling_ratio, part.aligned)
        for part in extractor.roi_layers
    ]
    rois = nn.functional.pad(boxes, (1, 0))
    return pool_regions(maps[: len(layers)], boxes, extractor.map_roi_levels(rois, len(layers)), layers)


def _stages(part: nn.Module) -> list[nn.Module]:
    return list(part) if isinstance(part, nn.ModuleList) else [part]


def _check_regions(rpn: nn.Module, heads: nn.Module) -> None:
    if type(rpn) is not RPNHead or type(heads) not in (StandardRoIHead, CascadeRoIHead) or heads.with_shared_head:
        raise ValueError(f"a {type(rpn).__name__} with a {type(heads).__name__} of mmdetection cannot be exported")
    masks = [heads.mask_roi_extractor, heads.mask_head] if heads.with_mask else []
    if any(getattr(head, "custom_cls_channels", False) for head in _stages(heads.bbox_head)):
        raise ValueError("a box head with scores of a custom activation cannot be exported")
    for part in [part for group in (heads.bbox_roi_extractor, heads.bbox_head, *masks) for part in _stages(group)]:
        plain = type(part) in (SingleRoIExtractor, FCNMaskHead) or (
            isinstance(part, BBoxHead) and type(part)._predict_by_feat_single is BBoxHead._predict_by_feat_single
        )
        if not plain:
            raise ValueError(f"a {type(part).__name__} of mmdetection cannot be exported")
        if isinstance(part, BBoxHead):
            _check_coder(part)
        for layer in getattr(part, "roi_layers", ()):
            if type(layer).__name__ != "RoIAlign" or layer.pool_mode != "avg":
                raise ValueError("regions that are pooled by other means than RoIAlign's average cannot be exported")
    if heads.with_mask and heads.test_cfg.mask_thr_binary != MASK_THRESHOLD:
        raise ValueError(f"masks with a threshold other than {MASK_THRESHOLD} (mask_thr_binary) cannot be exported")
    _check_coder(rpn)
    _check_choice(rpn.test_cfg)
    _check_choice(heads.test_cfg, dense=False)


def _check_coder(head: nn.Module) -> None:
    """Raise `ValueError` for boxes that may lie outside of the image."""
    if not getattr(head.bbox_coder, "clip_border", True):
        raise ValueError("boxes that are not cut at the image's border (clip_border=False) cannot be exported")


def _check_choice(config: Any, dense: bool = True) -> None:
    """Raise `ValueError` for boxes that are chosen by other means than plain non-maximum suppression."""
    suppression = dict(config.get("nms") or {})
    if suppression.pop("type", "nms") != "nms" or set(suppression) != {"iou_threshold"}:
        raise ValueError(f"only plain non-maximum suppression can be exported, not {config.get('nms')}")
    if config.get("max_per_img", -1) <= 0 or (dense and config.get("nms_pre", -1) <= 0):
        raise ValueError("a detector without a largest number of boxes (max_per_img, nms_pre) cannot be exported")
