"""The way from a photo's bytes to a network's input as a module, so that an exported file holds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_TIE = 1e-3
"""Added before rounding: libraries round halves up, and sums of floats come out a little above or below a half."""


@dataclass(frozen=True)
class Preparation:
    """What a test pipeline does to a photo.

    Attributes:
        mean: subtracted from each channel, in the network's order of channels.
        std: what each channel is divided by then.
        fit: (long, short): the photo is resized, in proportion, to the largest size within; None leaves it.
        edge: the photo is resized, in proportion, so that its short side is this; None leaves it.
        stretch: (height, width) the photo is resized to; None leaves it.
        crop: (height, width) cut from the centre, after that; None leaves it.
        mode: "bilinear", or "bicubic" with `antialias`.
        antialias: whether a smaller size averages, as Pillow does and OpenCV does not.
        bgr: whether the network takes blue first.
    """

    mean: Sequence[float]
    std: Sequence[float]
    fit: tuple[int, int] | None = None
    edge: int | None = None
    stretch: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    mode: str = "bilinear"
    antialias: bool = False
    bgr: bool = False


class PreparePhotos(nn.Module):
    """Photos `(N, H, W, 3)`, RGB, uint8, to a network's input `(N, 3, h, w)`: resized, cropped, normalised.

    All of it is arithmetic of the sizes, without a branch, so that exporters keep them free.
    """

    def __init__(self, preparation: Preparation) -> None:
        super().__init__()
        self.preparation = preparation
        self.register_buffer("mean", torch.tensor(preparation.mean).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preparation.std).reshape(1, -1, 1, 1), persistent=False)

    def forward(self, photos: Tensor) -> Tensor:
        """Map `(N, H, W, 3)` to `(N, 3, h, w)`."""
        how = self.preparation
        x = photos.permute(0, 3, 1, 2).float()
        size = self.size_of(*sides(x, 2, 3))
        if size is not None:
            x = _resize_like_pillow(x, size, how.mode) if how.antialias else resize_like_opencv(x, size)
        if how.crop is not None:
            height, width = how.crop
            top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
            x = x[:, :, top : top + height, left : left + width]
        if how.bgr:
            x = x.flip(1)
        return (x - self.mean) / self.std

    def size_of(self, height: int, width: int) -> tuple[int, int] | None:
        """The size (height, width) to which a photo is resized; None if it is left as it is."""
        how = self.preparation
        if how.stretch is not None:
            return how.stretch
        if how.edge is not None:
            short = torch.sym_min(height, width)
            return how.edge * height // short, how.edge * width // short
        if how.fit is None:
            return None
        long, short = how.fit
        larger, smaller = torch.sym_max(height, width), torch.sym_min(height, width)

        def scale(side: int) -> int:
            # The smaller of both scales, each rounded half up, in whole numbers; a pixel, where none would be left.
            by_long = (2 * side * long + larger) // (2 * larger)
            by_short = (2 * side * short + smaller) // (2 * smaller)
            return torch.sym_max(1, torch.sym_min(by_long, by_short))

        return own_symbol(scale(height)), own_symbol(scale(width))


def sides(x: Tensor, *axes: int) -> tuple[int, ...]:
    """Sizes of a tensor as numbers, for which TorchScript's tracer, which keeps one size, has tensors."""
    return tuple(side if isinstance(side, torch.SymInt) else int(side) for side in (x.shape[axis] for axis in axes))


def own_symbol(size: int) -> int:
    """A size, of at least 1, as itself; for an exporter that keeps sizes free, as a symbol of its own.

    It is read from a tensor then. Sizes of a pyramid are parts of this symbol, and not of an expression of the photo's
    size, which exporters take minutes to compare.
    """
    if not isinstance(size, torch.SymInt):
        return size
    found = torch.scalar_tensor(size, dtype=torch.int64).item()
    torch._check(found >= 1)
    return found


def resize_like_opencv(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bytes as OpenCV's INTER_LINEAR does, to the bit: in whole numbers, weights counted in 1/2048.

    It halves rows' sums to 16 bits before it weighs them, and cuts what is below a quarter off each (`VResizeLinear` of
    its resize.cpp).

    Args:
        x: `(N, C, H, W)`, float, whole numbers from 0 to 255.
        size: height and width of the result.
    """
    first, second, weight = _neighbours(x.shape[3], size[1], x)
    # Beyond the outer columns, one column has all the weight; beyond the outer rows, the same row has both weights.
    weight = torch.where(first == second, torch.zeros_like(weight), weight)
    x = ((2048 - weight) * x[..., first] + weight * x[..., second]).div(16).floor().double()
    first, second, weight = _neighbours(x.shape[2], size[0], x)
    upper, lower = ((2048 - weight)[:, None] * x[..., first, :], weight[:, None] * x[..., second, :])
    return ((upper / 65536).floor() + (lower / 65536).floor() + 2).div(4).floor().float()


def _neighbours(length: int, wanted: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Between which two places of a side each of the result is, and the second's weight, from 0 to 2048."""
    one = torch.arange(1, 2, device=like.device).double()
    scale = one / (one * wanted / length)
    position = ((torch.arange(wanted, device=like.device).double() + 0.5) * scale - 0.5).float()
    first = position.floor()
    weight = ((position - first) * 2048).round().to(like.dtype)
    first = first.long()
    return first.clamp(0, length - 1), (first + 1).clamp(0, length - 1), weight


def _resize_like_pillow(x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Resize as Pillow does: by a filter as wide as the pixels of the result, along the width first, then the height.

    As products with matrices, which all runtimes compute alike; their own resizing differs by a byte here and there.
    """
    x = _to_bytes(x @ _filter_matrix(x.shape[3], size[1], mode, x).mT)
    return _to_bytes(_filter_matrix(x.shape[2], size[0], mode, x) @ x)


def _filter_matrix(length: int, wanted: int, mode: str, like: Tensor) -> Tensor:
    """The matrix `(wanted, length)` that resamples one side by Pillow's triangle (bilinear) or cubic (a = -0.5)."""
    scale = torch.arange(1, 2, device=like.device).to(like.dtype) * length / wanted
    centre = (torch.arange(wanted, device=like.device).to(like.dtype)[:, None] + 0.5) * scale
    position = torch.arange(length, device=like.device).to(like.dtype)[None] + 0.5
    t = ((position - centre) / scale.clamp(min=1.0)).abs()
    if mode == "bilinear":
        weights = (1 - t).clamp(min=0)
    else:
        near, far = (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2
        weights = torch.where(t < 1, near, torch.where(t < 2, far, torch.zeros_like(t)))
    return weights / weights.sum(1, keepdim=True)


def _to_bytes(x: Tensor) -> Tensor:
    """Values from 0 to 255, rounded: photos are resized as bytes."""
    return (x + (0.5 + _TIE)).floor().clamp(0, 255)
