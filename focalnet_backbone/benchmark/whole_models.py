"""Detectors and segmenters of mmengine's configs as functions of images alone, whose work is always the same."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from mmengine.utils import import_modules_from_strings
from torch import Tensor, nn

from focalnet_backbone.benchmark.peers import make_peer
from focalnet_backbone.network.backbone import FocalNet
from focalnet_backbone.openmmlab.runners import load_config

PROPOSALS, MASKS = 1000, 100
"""RoIs that published counts of Mask R-CNN give to the heads of boxes and of masks."""


class WholeModel(nn.Module):
    """A detector or segmenter without pre- and postprocessing.

    Maps images `(N, 3, H, W)` to a list of tensors: a segmenter's scores, a detector's predictions at every anchor,
    and with RoI heads the predictions for `PROPOSALS` boxes, always the same, and `MASKS` masks.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute what the model predicts from."""
        if not hasattr(self.model, "roi_head"):
            return _tensors(self.model(images, None, mode="tensor"))
        features = self.model.extract_feat(images)
        rois = _boxes(images)
        predictions = [self.model.rpn_head(features), self.model.roi_head._bbox_forward(features, rois)]
        if self.model.roi_head.with_mask:
            predictions.append(self.model.roi_head._mask_forward(features, rois[:MASKS])["mask_preds"])
        return _tensors(predictions)


def _boxes(images: Tensor) -> Tensor:
    """`PROPOSALS` boxes `(index of the image, x1, y1, x2, y2)` within the images, of all sizes."""
    generator = torch.Generator().manual_seed(0)
    height, width = images.shape[2:]
    corners = torch.rand(PROPOSALS, 2, 2, generator=generator) * torch.tensor([width, height])
    index = torch.arange(PROPOSALS) % len(images)
    boxes = torch.cat([index[:, None], corners.amin(dim=1), corners.amax(dim=1)], dim=1)
    return boxes.to(images.device)


def _tensors(predictions: object) -> list[Tensor]:
    if isinstance(predictions, Tensor):
        return [predictions]
    if isinstance(predictions, dict):
        predictions = [predictions[name] for name in ("cls_score", "bbox_pred")]
    return [tensor for part in predictions for tensor in _tensors(part)]


def build_whole_model(config: Path, peer: str | None = None) -> WholeModel:
    """The model of a config, with random weights, and with a peer's FocalNet in the place of ours if one is named.

    Raises `ValueError` for a detector whose RoI heads come in stages, and a peer in the place of another backbone.
    """
    cfg = load_config(config)
    import_modules_from_strings(f"{cfg.default_scope}.models")
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = revert_sync_batchnorm(MODELS.build(copy.deepcopy(cfg.model)))
    if hasattr(model, "roi_head") and not hasattr(model.roi_head, "_bbox_forward"):
        raise ValueError(f"{config.name}: only detectors of one stage or with one stage of RoI heads are compared")
    if peer:
        if not isinstance(model.backbone, FocalNet):
            raise ValueError(f"{config.name}: {peer}'s FocalNet takes the place of a FocalNet alone")
        model.backbone = make_peer(peer, model.backbone)
    return WholeModel(model)
