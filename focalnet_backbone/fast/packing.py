"""Weights in the layout in which oneDNN multiplies by them, kept by blocks whose weights change no more.

A product with weights as they come copies them into that layout first, part by part, each time. For few positions, as
in the last stages of small images, that takes about as long as multiplying does.
"""

from __future__ import annotations

import platform

import torch
from torch import Tensor

# Weights of fewer rows than this are multiplied by no faster.
_MIN_WEIGHT_ROWS = 32
# For more positions than this, a copy of the weights is a small part of the product: measured with AVX2, packed weights
# take 0.92 of the others' time for a network at 224x224, 0.98 at 256x256, and 1.01 at 512x512 if all are packed.
_MAX_POSITIONS = 1024


class PackedWeights:
    """The packed weights of one block, each made when it is first used and made anew when its weight has changed.

    A change is one that torch counts: writing to the weight, or putting another in its place; not writing through
    `.data`. Copies and pickles of a block come without, and make their own.
    """

    def __init__(self) -> None:
        # By name and rows: the weight, sharing its memory so that no other can take its address, its version, and the
        # packed one.
        self._packed: dict[tuple[str, int], tuple[Tensor, int, Tensor]] = {}

    def __deepcopy__(self, memo: dict) -> PackedWeights:
        return PackedWeights()

    def __reduce__(self) -> tuple[type[PackedWeights], tuple[()]]:
        return PackedWeights, ()

    def get(self, name: str, weight: Tensor, positions: int) -> Tensor | None:
        """The packed form of `weight` `(D, C)`, float32 on the CPU, of that name; None where it is not worth it.

        `positions` are the rows that are to be multiplied.
        """
        if len(weight) < _MIN_WEIGHT_ROWS or positions > _MAX_POSITIONS or weight.is_inference():
            return None
        key = name, weight.storage_offset()
        kept = self._packed.get(key)
        if kept is None or kept[0].data_ptr() != weight.data_ptr() or kept[1] != weight._version:
            weight = weight.detach()
            packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
            kept = self._packed[key] = weight, weight._version, packed
        return kept[2]


def can_pack(x: Tensor) -> bool:
    """Whether products of `x` by packed weights are to be had. Measured on x86 only."""
    mkldnn = torch.backends.mkldnn
    usable = mkldnn.is_available() and mkldnn.enabled and platform.machine() in ("x86_64", "AMD64")
    return usable and x.device.type == "cpu" and x.dtype == torch.float32
