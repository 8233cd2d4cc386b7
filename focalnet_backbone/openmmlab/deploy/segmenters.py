"""Segmenters of mmsegmentation as plain modules, whose sizes exporters keep free."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focalnet_backbone.features.boxes import pad_to_multiple
from focalnet_backbone.features.preparation import Preparation, PreparePhotos, sides
from focalnet_backbone.openmmlab.deploy.photos import read_padding

_PIXEL_HEADS = ("UPerHead", "FCNHead", "PSPHead")
_MASK_HEAD = "Mask2FormerHead"


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
    one_at_a_time = False
    outputs = ("logits", "labels")

    def __init__(self, model: nn.Module, preparation: Preparation | None) -> None:
        super().__init__()
        _check_model(model)
        self.prepare = None if preparation is None else PreparePhotos(preparation)
        self.multiple = read_padding(model.data_preprocessor)
        self.align_corners = model.align_corners
        self.backbone, self.head = model.backbone, _pool_by_products(model.decode_head)
        self.neck = model.neck if model.with_neck else nn.Identity()
        self.threshold = _read_threshold(model.decode_head)
        self.classify = self._by_masks if _has_masks(model.decode_head) else self._by_pixels
        if _has_masks(model.decode_head):
            from focalnet_backbone.openmmlab.deploy.transformers import attend_to_sizes

            attend_to_sizes(self.head)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map photos `(N, H, W, 3)` or images `(N, 3, H, W)` to logits `(N, classes, H, W)` and labels `(N, H, W)`.

        A head that has one output for two classes gives logits `(N, 1, H, W)`, of the second.
        """
        x = images if self.prepare is None else self.prepare(images)
        height, width = sides(x, 2, 3)
        x = pad_to_multiple(x, self.multiple)
        logits = self.classify(self.neck(self.backbone(x)), sides(x, 2, 3))[:, :, :height, :width]
        if self.prepare is not None:
            logits = self._resize(logits, sides(images, 1, 2))
        if self.threshold is not None:
            return logits, (logits.sigmoid() > self.threshold)[:, 0].long()
        return logits, logits.argmax(1)

    def _by_pixels(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """The logits of a head that has some for each pixel, in a size."""
        return self._resize(self.head(maps), size)

    def _by_masks(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """The sum of Mask2Former's masks, each with the probabilities of its classes, in a size."""
        classes, masks = (found[-1] for found in self.head(maps, None))
        masks = F.interpolate(masks, size=size, mode="bilinear", align_corners=False).sigmoid()
        return torch.einsum("nqc,nqhw->nchw", classes.softmax(-1)[..., :-1], masks)

    def _resize(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(x, size=size, mode="bilinear", align_corners=self.align_corners)


def _check_model(model: nn.Module) -> None:
    name = type(model.decode_head).__name__
    if type(model).__name__ != "EncoderDecoder" or isinstance(model.decode_head, nn.ModuleList):
        raise ValueError(f"only plain encoder-decoders can be exported, not {type(model).__name__}")
    if name not in (*_PIXEL_HEADS, _MASK_HEAD):
        known = ", ".join(_PIXEL_HEADS)
        raise ValueError(f"a {name} cannot be exported, only {known} and {_MASK_HEAD}; --backbone exports the backbone")
    if model.test_cfg.get("mode", "whole") != "whole":
        raise ValueError("sliding windows (test_cfg.mode 'slide') cannot be exported; test_cfg.mode 'whole' can")


def _read_threshold(head: nn.Module) -> float | None:
    """The probability above which a pixel is of the second class, of a head that has one output for two classes."""
    if head.out_channels > 1:
        return None
    if getattr(head, "threshold", None) is None:
        raise ValueError(f"a {type(head).__name__} of one class cannot be exported, as it has no threshold")
    return head.threshold


def _has_masks(head: nn.Module) -> bool:
    return type(head).__name__ == _MASK_HEAD


def _pool_by_products(head: nn.Module) -> nn.Module:
    """Replace adaptive pooling, of which ONNX has none, in place."""
    for module in list(head.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.AdaptiveAvgPool2d):
                size = child.output_size
                setattr(module, name, PoolToGrid((size, size) if isinstance(size, int) else tuple(size)))
    return head
