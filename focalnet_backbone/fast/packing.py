"""Weights of linear layers as oneDNN lays them out, kept beside parameters for as long as these stay as they are.

A matrix product then spends no time on laying them out, and comes with its bias, a sum or GELU. The copies take as much
memory as the weights. They are in no state dict, are not copied with a model, and go with the first step of training.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

_SAMPLE = 64
"""Elements of a weight, spread evenly, by which it is seen to be in another order."""


@dataclass
class _Packed:
    version: int
    address: int
    total: int
    sample: Tensor
    parts: dict[tuple[int, int], Tensor] = field(default_factory=dict)


_packed = WeakTensorKeyDictionary()


def pack(weight: Tensor, first: int = 0, last: int | None = None) -> Tensor | None:
    """Rows `first` to `last` of a parameter `(D, C, ...)` for `packed_linear`; None if they are not to be packed.

    Whoever changes a parameter in place changes its version. `.data` does not (mmengine's averaged weights are swapped
    by it), so that the sum of all bits and some values are compared too. At 224x224 that takes 3 % of a network's time.
    """
    if type(weight) is not nn.Parameter:
        return None
    if not _may_be_packed(weight):
        _packed.pop(weight, None)
        return None
    entry = _packed.get(weight)
    values = weight.detach().view(-1)
    state = (weight._version, weight.data_ptr(), _sum_of_bits(values))
    sample = values[:: max(1, len(values) // _SAMPLE) | 1]
    if entry is None or (entry.version, entry.address, entry.total) != state or not torch.equal(entry.sample, sample):
        entry = _packed[weight] = _Packed(*state, sample.clone())
    rows = (first, len(weight) if last is None else last)
    if rows not in entry.parts:
        matrix = weight.detach().flatten(1)[slice(*rows)]
        entry.parts[rows] = torch.ops.mkldnn._reorder_linear_weight(matrix.contiguous(), None)
    return entry.parts[rows]


def packed_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, base: Tensor | None = None, gelu: str | None = None
) -> Tensor:
    """Map rows `(..., C)` to `(..., D)` by a packed weight; added to `base`, or through GELU, approximated as named."""
    if base is not None:
        return torch.ops.mkldnn._linear_pointwise.binary(x, base, weight, bias, "add")
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu" if gelu else "none", [], gelu or "none")


def forget(parameters: Iterable[Tensor]) -> None:
    """Free the copies of parameters that are about to change."""
    if _packed:
        for parameter in parameters:
            _packed.pop(parameter, None)


def _sum_of_bits(values: Tensor) -> int:
    """A sum that any one change of values `(K,)` in float32 changes, as it wraps around and rounds nothing."""
    aligned = len(values) % 2 == 0 and values.storage_offset() % 2 == 0
    return int(values.view(torch.int64 if aligned else torch.int32).sum())


def _may_be_packed(weight: Tensor) -> bool:
    mkldnn = torch.backends.mkldnn
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and mkldnn.is_available()
        and mkldnn.enabled
        and weight.is_contiguous()
        and weight.numel() > 0
        # Without a version, a change would go unseen.
        and not weight.is_inference()
    )
