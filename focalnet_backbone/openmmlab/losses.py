"""mmsegmentation's cross entropy, mended where class weights meet pixels of no class."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

from torch import Tensor

_LOSSES = "mmseg.models.losses.cross_entropy_loss"


def mend_cross_entropy() -> None:
    """Let mmsegmentation's `CrossEntropyLoss` take `class_weight` with ignored pixels, and with `use_sigmoid`.

    By itself it looks for the weight of class 255, and lays the weights of a sigmoid along the width of the image. Does
    nothing if mmsegmentation has not been imported; a loss that is there already stays as it is.
    """
    losses = sys.modules.get(_LOSSES)
    if losses is None or hasattr(losses.cross_entropy, "__wrapped__"):
        return
    losses.cross_entropy = _with_weighted_mean(losses.cross_entropy)
    losses.binary_cross_entropy = _with_weights_by_class(losses.binary_cross_entropy)


def _with_weighted_mean(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(original)
    def cross_entropy(
        pred: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        class_weight: Tensor | None = None,
        reduction: str = "mean",
        avg_factor: float | Tensor | None = None,
        ignore_index: int = -100,
        avg_non_ignore: bool = False,
    ) -> Tensor:
        if class_weight is not None and reduction == "mean" and avg_factor is None:
            # As PyTorch's: the mean of the losses, each pixel with the weight of its class, and an ignored one with 0.
            ignored = label == ignore_index
            avg_factor = class_weight[label.masked_fill(ignored, 0)].masked_fill(ignored, 0).sum()
        return original(pred, label, weight, class_weight, reduction, avg_factor, ignore_index, avg_non_ignore)

    return cross_entropy


def _with_weights_by_class(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(original)
    def binary_cross_entropy(
        pred: Tensor, label: Tensor, *args: object, class_weight: Tensor | None = None, **kwargs: object
    ) -> Tensor:
        if class_weight is not None and pred.ndim == 4:
            class_weight = class_weight.view(-1, 1, 1)
        return original(pred, label, *args, class_weight=class_weight, **kwargs)

    return binary_cross_entropy
