"""Segmenters of mmsegmentation as plain modules, whose sizes exporters keep free."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focalnet_backbone.features.preparation import Preparation, PreparePhotos


class PoolToGrid(nn.Module):
    """`nn.AdaptiveAvgPool2d` as two products with matrices that are made of the sizes, so that these may stay free.

    Args:
        size: rows and columns of the result.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, C, H, W)` to `(N, C, rows, columns)`."""
        rows = _averages(x.shape[2], self.size[0], x)
        columns = _averages(x.shape[3], self.size[1], x)
        return rows @ x @ columns.mT


def _averages(length: int, bins: int, like: Tensor) -> Tensor:
    """The matrix `(bins, length)` that averages over the bins of adaptive pooling, which overlap where need be."""
    number = torch.arange(bins, device=like.device)[:, None]
    start, end = number * length // bins, ((number + 1) * length + bins - 1) // bins
    position = torch.arange(length, device=like.device)[None]
    inside = (position >= start) & (position < end)
    return inside.to(like.dtype) / (end - start).to(like.dtype)


class SegmentorGraph(nn.Module):
    """An encoder-decoder of mmsegmentation, from photos or normalised images to the class of each pixel.

    Args:
        model: the segmenter.
        preparation: what is done to photos; None for a network that takes normalised images.

    Raises:
        ValueError: the model is one that this cannot express.
    """

    task = "segmentation"
    outputs = ("logits", "labels")

    def __init__(self, model: nn.Module, preparation: Preparation | None) -> None:
        super().__init__()
        _check_model(model)
        self.prepare = None if preparation is None else PreparePhotos(preparation)
        self.align_corners = model.align_corners
        self.backbone, self.head = model.backbone, _pool_by_products(model.decode_head)
        self.neck = model.neck if model.with_neck else nn.Identity()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map photos `(N, H, W, 3)` or images `(N, 3, H, W)` to logits `(N, classes, H, W)` and labels `(N, H, W)`."""
        x = images if self.prepare is None else self.prepare(images)
        logits = self.head(self.neck(self.backbone(x)))
        logits = self._resize(logits, (x.shape[2], x.shape[3]))
        if self.prepare is not None:
            logits = self._resize(logits, (images.shape[1], images.shape[2]))
        return logits, logits.argmax(1)

    def _resize(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(x, size=size, mode="bilinear", align_corners=self.align_corners)


def _check_model(model: nn.Module) -> None:
    name = type(model.decode_head).__name__
    if type(model).__name__ != "EncoderDecoder" or isinstance(model.decode_head, nn.ModuleList):
        raise ValueError(f"only plain encoder-decoders can be exported, not {type(model).__name__}")
    if name not in ("UPerHead", "FCNHead", "PSPHead"):
        raise ValueError(
            f"a {name} cannot be exported, only UPerHead, FCNHead and PSPHead; --backbone exports the backbone"
        )
    if model.test_cfg.get("mode", "whole") != "whole":
        raise ValueError("sliding windows (test_cfg.mode 'slide') cannot be exported; test_cfg.mode 'whole' can")
    if model.decode_head.out_channels < 2:
        raise ValueError("a head with one output channel, whose threshold is not in the graph, cannot be exported")


def _pool_by_products(head: nn.Module) -> nn.Module:
    """Replace adaptive pooling, of which ONNX has none, in place."""
    for module in list(head.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.AdaptiveAvgPool2d):
                size = child.output_size
                setattr(module, name, PoolToGrid((size, size) if isinstance(size, int) else tuple(size)))
    return head
