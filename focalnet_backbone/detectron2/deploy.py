"""Mask R-CNN of detectron2 as a plain module, whose sizes exporters keep free."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import GeneralizedRCNN, StandardROIHeads
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from PIL import Image
from torch import Tensor, nn

from focalnet_backbone.detectron2.predict import Detectron2Predictor
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


class MaskRCNNGraph(nn.Module):
    """Mask R-CNN for one photo: `GeneralizedRCNN.inference`, with a fixed number of places for boxes.

    Args:
        model: the detector.
        preparation: what is done to the photo.

    Raises:
        ValueError: it is another model, or has a part that this cannot express.
    """

    def __init__(self, model: nn.Module, preparation: Preparation) -> None:
        super().__init__()
        _check_model(model)
        self.prepare = PreparePhotos(preparation)
        self.backbone, self.rpn, self.heads = model.backbone, model.proposal_generator, model.roi_heads

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what `forward` gives."""
        return ("boxes", "scores", "labels", *(("masks",) if self.heads.mask_on else ()))

    def forward(self, photos: Tensor) -> tuple[Tensor, ...]:
        """Find the objects in one photo `(1, H, W, 3)`, uint8, RGB.

        Returns:
            Boxes `(K, 4)` in pixels of the photo (left, top, right, bottom), scores `(K,)`, best first, labels `(K,)`,
            and, of a model with masks, probabilities `(K, M, M)` on a grid over each box.
        """
        x = self.prepare(photos)
        size = sides(x, 2, 3)
        maps = self.backbone(pad_to_multiple(x, self.backbone.size_divisibility))
        proposals, known = self._propose([maps[name] for name in self.rpn.in_features], size)
        maps = [maps[name] for name in self.heads.box_in_features]
        boxes, scores, labels = self._classify(maps, proposals, known, size)
        photo = sides(photos, 1, 2)
        found = clip(scale_boxes(boxes, size, photo), photo)
        rows = ((scores > NONE) & are_boxes(found)).nonzero()[:, 0]
        outputs = found[rows], scores[rows], labels[rows]
        return (*outputs, self._masks(maps, boxes, labels)[rows]) if self.heads.mask_on else outputs

    def _propose(self, maps: list[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The region proposals `(P, 4)`, and which places hold one."""
        logits, deltas = self.rpn.rpn_head(maps)
        boxes, scores, levels = [], [], []
        count = self.rpn.pre_nms_topk[False]
        for level, (objectness, delta) in enumerate(zip(logits, deltas, strict=True)):
            anchors = _anchors(self.rpn.anchor_generator, level, objectness.shape[2], objectness.shape[3])
            delta = delta[0].reshape(-1, 4, *delta.shape[2:]).permute(2, 3, 0, 1).reshape(-1, 4)
            best, rows = top(objectness[0].permute(1, 2, 0).flatten(), count)
            delta, anchors = take(delta, rows, count), take(anchors, rows, count)
            boxes.append(_decode(delta, anchors, self.rpn.box2box_transform))
            scores.append(best)
            levels.append(torch.full_like(rows, level))
        box, score = clip(torch.cat(boxes), size), torch.cat(scores)
        score = torch.where(are_boxes(box, self.rpn.min_box_size), score, NONE)
        count = self.rpn.post_nms_topk[False]
        best, rows = best_of_kinds(box, score, torch.cat(levels), self.rpn.nms_thresh, count)
        return take(box, rows, count), best > NONE

    def _classify(
        self, maps: list[Tensor], proposals: Tensor, known: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores and labels of as many objects as the config allows, best first."""
        layers = self.heads.box_predictor
        logits, deltas = layers(self.heads.box_head(_pool(self.heads.box_pooler, maps, proposals)))
        scores = logits.softmax(1)[:, :-1]
        kinds = deltas.shape[1] // 4
        repeated = proposals[:, None].expand(-1, kinds, -1).reshape(-1, 4)
        boxes = clip(_decode(deltas.reshape(-1, 4), repeated, layers.box2box_transform), size)
        boxes = boxes.reshape(-1, kinds, 4).expand(-1, scores.shape[1], -1)
        return best_of_classes(
            boxes,
            scores,
            known,
            lowest=layers.test_score_thresh,
            threshold=layers.test_nms_thresh,
            count=layers.test_topk_per_image,
        )

    def _masks(self, maps: list[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        return masks_of_labels(self.heads.mask_head.layers(_pool(self.heads.mask_pooler, maps, boxes)), labels)


def open_mask_rcnn(config: str | Path, weights: str | Path) -> tuple[MaskRCNNGraph, dict[str, Any]]:
    """The detector of a config, with trained weights, and its metadata.

    Raises:
        FileNotFoundError, CheckpointError: as `Detectron2Predictor` does.
        ValueError: it is no Mask R-CNN or Faster R-CNN, or is prepared for in a way that a file cannot hold.
    """
    predictor = Detectron2Predictor(config, weights, device="cpu")
    how = _preparation(predictor.mapper, predictor.model)
    graph = MaskRCNNGraph(predictor.model, how).eval()
    names = list(predictor.metadata.get("thing_classes") or ())
    ids = {index: id for id, index in predictor.metadata.get("thing_dataset_id_to_contiguous_id", {}).items()}
    count = predictor.model.roi_heads.num_classes
    metadata = {
        "classes": names if len(names) == count else [f"class {index}" for index in range(count)],
        "category_ids": [ids.get(index, index) for index in range(count)],
        "mean": how.mean,
        "std": how.std,
        "fit": how.fit,
    }
    return graph, metadata


def _check_model(model: nn.Module) -> None:
    parts = {
        "meta architecture": (model, GeneralizedRCNN),
        "proposal generator": (getattr(model, "proposal_generator", None), RPN),
        "head": (getattr(model, "roi_heads", None), StandardROIHeads),
    }
    for name, (part, kind) in parts.items():
        if type(part) is not kind:
            raise ValueError(f"a {name} {type(part).__name__} cannot be exported, only {kind.__name__}")
    heads = model.roi_heads
    exact = {
        "box predictor": (heads.box_predictor, FastRCNNOutputLayers),
        "anchor generator": (model.proposal_generator.anchor_generator, DefaultAnchorGenerator),
    }
    for name, (part, kind) in exact.items():
        if type(part) is not kind:
            raise ValueError(f"a {name} {type(part).__name__} cannot be exported, only {kind.__name__}")
    if heads.keypoint_on or getattr(heads, "train_on_pred_boxes", False):
        raise ValueError("heads for keypoints cannot be exported")
    if getattr(heads.box_predictor, "use_sigmoid_ce", False):
        raise ValueError("a box predictor with sigmoid scores cannot be exported")


def _preparation(mapper: Any, model: nn.Module) -> Preparation:
    """The mapper's resizing and the model's normalising."""
    transforms = list(mapper.augmentations.augs)
    if len(transforms) != 1 or type(transforms[0]) is not ResizeShortestEdge:
        raise ValueError("only a test mapper whose one augmentation is ResizeShortestEdge can be exported")
    resize = transforms[0]
    if len(set(resize.short_edge_length)) != 1 or resize.interp != Image.BILINEAR:
        raise ValueError("only a bilinear ResizeShortestEdge with one length can be exported")
    short = resize.short_edge_length[0]
    return Preparation(
        tuple(model.pixel_mean.flatten().tolist()),
        tuple(model.pixel_std.flatten().tolist()),
        fit=(max(short, resize.max_size), short),
        antialias=True,
        bgr=mapper.image_format == "BGR",
    )


def _anchors(generator: DefaultAnchorGenerator, level: int, height: int, width: int) -> Tensor:
    """The anchors `(height * width * A, 4)` of a map, in its order."""
    cells, stride = list(generator.cell_anchors)[level], generator.strides[level]
    x = (torch.arange(width, dtype=torch.float32) + generator.offset) * stride
    y = (torch.arange(height, dtype=torch.float32) + generator.offset) * stride
    y, x = y[:, None].expand(-1, width), x[None].expand(height, -1)
    corners = torch.stack([x, y, x, y], dim=-1)
    return (corners[:, :, None] + cells).reshape(-1, 4)


def _decode(deltas: Tensor, anchors: Tensor, transform: Any) -> Tensor:
    """Boxes `(n, 4)` of deltas; `Box2BoxTransform.apply_deltas`, which is compiled by TorchScript."""
    x, y, w, h = (delta / weight for delta, weight in zip(deltas.unbind(1), transform.weights, strict=True))
    left, top, right, bottom = anchors.unbind(1)
    width, height = right - left, bottom - top
    x, y = x * width + (left + 0.5 * width), y * height + (top + 0.5 * height)
    w, h = w.clamp(max=transform.scale_clamp).exp() * width, h.clamp(max=transform.scale_clamp).exp() * height
    return torch.stack([x - 0.5 * w, y - 0.5 * h, x + 0.5 * w, y + 0.5 * h], dim=1)


def _pool(pooler: ROIPooler, maps: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """What `ROIPooler` gives, of one image."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    level = torch.floor(pooler.canonical_level + torch.log2(area.sqrt() / pooler.canonical_box_size + 1e-8))
    level = level.clamp(pooler.min_level, pooler.max_level) - pooler.min_level
    layers = [
        RoiLayer(part.output_size, part.spatial_scale, max(part.sampling_ratio, 0), part.aligned)
        for part in pooler.level_poolers
    ]
    return pool_regions(maps, boxes, level, layers)
