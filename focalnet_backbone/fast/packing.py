"""Weights of linear layers as oneDNN lays them out, kept beside parameters for as long as these stay as they are.

A matrix product then spends no time on laying them out, and comes with its bias, a sum or GELU: on two cores of an AMD
EPYC (AVX2) it takes half to two thirds of the time. The copies take as much memory as the weights. They are in no state
dict, are not copied with a model, and go when the model trains.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

_SAMPLE = 4096
"""Elements of a weight, spread evenly, by which it is seen to be another one although its version is the same."""


@dataclass
class _Packed:
    version: int
    address: int
    sample: Tensor
    parts: dict[tuple[int, int], Tensor] = field(default_factory=dict)


_packed = WeakTensorKeyDictionary()


def pack(weight: Tensor, first: int = 0, last: int | None = None) -> Tensor | None:
    """Rows `first` to `last` of a parameter `(D, C, ...)` for `packed_linear`; None if they are not to be packed.

    Whoever changes a parameter in place changes its version. `.data` does not (mmengine's averaged weights are swapped
    by it), so that a sample of the values is compared too.
    """
    if type(weight) is not nn.Parameter or not _may_be_packed(weight):
        return None
    entry = _packed.get(weight)
    values = weight.detach().view(-1)
    sample = values[:: max(1, len(values) // _SAMPLE) | 1]
    if (
        entry is None
        or (entry.version, entry.address) != (weight._version, weight.data_ptr())
        or not torch.equal(entry.sample, sample)
    ):
        entry = _packed[weight] = _Packed(weight._version, weight.data_ptr(), sample.clone())
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
