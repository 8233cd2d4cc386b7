"""Mask2Former of mmdetection as a plain module, panoptic or of instances, without a size that follows the data."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.models.detectors import Mask2Former
from torch import Tensor, nn

from focalnet_backbone.features.boxes import pad_to_multiple
from focalnet_backbone.features.preparation import Preparation, PreparePhotos, sides
from focalnet_backbone.openmmlab.deploy.photos import read_padding
from focalnet_backbone.openmmlab.deploy.transformers import attend_to_sizes
from focalnet_backbone.openmmlab.predict import PANOPTIC_OFFSET


class _MaskGraph(nn.Module):
    """Mask2Former of mmdetection for one photo.

    Args:
        model: the detector; its attention is replaced in place.
        preparation: what is done to the photo.

    Raises:
        ValueError: it is another model.
    """

    one_at_a_time = True

    def __init__(self, model: nn.Module, preparation: Preparation) -> None:
        super().__init__()
        head = getattr(model, "panoptic_head", None)
        if type(model) is not Mask2Former or type(head) is not Mask2FormerHead:
            raise ValueError(f"a {type(model).__name__} of mmdetection cannot be exported, only Mask2Former")
        self.fusion = model.panoptic_fusion_head
        self.prepare = PreparePhotos(preparation)
        self.multiple = read_padding(model.data_preprocessor)
        self.backbone, self.neck = model.backbone, model.neck if model.with_neck else nn.Identity()
        self.head = attend_to_sizes(head)

    def forward(self, photos: Tensor) -> tuple[Tensor, ...]:
        """Map one photo `(1, H, W, 3)`, uint8, RGB, to what `read` makes of its masks."""
        x = self.prepare(photos)
        height, width = sides(x, 2, 3)
        x = pad_to_multiple(x, self.multiple)
        classes, masks = (found[-1] for found in self.head(self.neck(self.backbone(x)), None))
        masks = F.interpolate(masks, size=sides(x, 2, 3), mode="bilinear", align_corners=False)
        masks = masks[:, :, :height, :width]
        size = sides(photos, 1, 2)
        return self.read(classes[0], F.interpolate(masks, size=size, mode="bilinear", align_corners=False)[0])

    def read(self, logits: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        """Outputs of the queries' classes `(Q, classes + 1)` and masks `(Q, H, W)`, both before the activation."""
        raise NotImplementedError


class InstanceGraph(_MaskGraph):
    """`MaskFormerFusionHead.instance_postprocess`: boxes, scores, labels, and the masks in the photo's pixels."""

    task = "detection"
    outputs = ("boxes", "scores", "labels", "masks")

    def read(self, logits: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        """Boxes `(K, 4)`, scores and labels `(K,)`, masks `(K, H, W)`, uint8."""
        scores = logits.softmax(-1)[:, :-1]
        classes = scores.shape[1]
        best, places = scores.flatten().topk(self.fusion.test_cfg.get("max_per_image", 100))
        labels = places % classes
        things = (labels < self.fusion.num_things_classes).nonzero()[:, 0]
        best, labels, chosen = best[things], labels[things], masks[(places // classes)[things]]
        inside = chosen > 0
        area = inside.float().flatten(1).sum(1)
        certainty = (chosen.sigmoid() * inside).flatten(1).sum(1) / (area + 1e-6)
        return _boxes_of(inside), best * certainty, labels, inside.to(torch.uint8)


def _boxes_of(masks: Tensor) -> Tensor:
    """The smallest boxes `(K, 4)` around masks `(K, H, W)`; zeros for one that is empty."""
    spans = []
    for axis, other in ((2, 1), (1, 2)):
        there = masks.any(other)
        place = torch.arange(masks.shape[axis], device=masks.device)
        end = torch.where(there, place + 1, 0).amax(1)
        spans.append((torch.minimum(torch.where(there, place, masks.shape[axis]).amin(1), end), end))
    (left, right), (top, bottom) = spans
    return torch.stack([left, top, right, bottom], dim=1).float()


class PanopticGraph(_MaskGraph):
    """`MaskFormerFusionHead.panoptic_postprocess`: the class of each pixel and its segment, `(1, H, W)` each.

    A pixel of no segment has the number of classes for its class. A segment is its class plus 1000 times the number of
    its object, which counts from 1; stuff has 0.
    """

    task = "segmentation"
    outputs = ("labels", "panoptic")

    def read(self, logits: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        """Give each pixel to a query or to none."""
        masks = masks.sigmoid()
        fusion, config = self.fusion, self.fusion.test_cfg
        scores, labels = logits.softmax(-1).max(-1)
        kept = (labels != fusion.num_classes) & (scores > config.get("object_mask_thr", 0.8))
        # A query that is left out has a probability below all others.
        chosen = torch.where(kept, scores, -1.0)[:, None, None]
        owner = torch.where(chosen > 0, chosen * masks, chosen).argmax(0)
        inside = masks >= 0.5
        queries = torch.arange(labels.shape[0], device=labels.device)
        owned = owner[None] == queries[:, None, None]
        area, original = owned.flatten(1).sum(1), inside.flatten(1).sum(1)
        share = area.double() / original.clamp(min=1).double()
        real = kept & (area > 0) & (original > 0) & (share >= config.get("iou_thr", 0.8))
        thing = real & (labels < fusion.num_things_classes)
        number = torch.where(thing, thing.long().cumsum(0), 0)
        shown = real[owner]
        if config.get("filter_low_score", False):
            shown = shown & (owned & inside).any(0)
        label = torch.where(shown, labels[owner], fusion.num_classes)
        segment = torch.where(shown, (labels + number * PANOPTIC_OFFSET)[owner], fusion.num_classes)
        return label[None], segment[None]
