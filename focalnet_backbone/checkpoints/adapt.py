"""Fitting a checkpoint's tensors to a model with larger focal windows or more focal levels."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from focalnet_backbone.checkpoints.errors import CheckpointError

_PROJECTION = re.compile(r"(layers\.\d+\.blocks\.\d+\.modulation)\.f\.(weight|bias)")
_KERNEL = re.compile(r"(layers\.\d+\.blocks\.\d+\.modulation)\.focal_layers\.(\d+)\.0\.weight")


def resize_kernel(kernel: Tensor, size: int) -> Tensor:
    """Centre a depth-wise kernel `(C, 1, k, k)` in zeros, or cut it to its centre: `(C, 1, size, size)`."""
    margin = (size - kernel.shape[-1]) // 2
    return F.pad(kernel, (margin, margin, margin, margin))


def spread_gates(projection: Tensor, channels: int, levels: int) -> Tensor:
    """Give the projection `f` gates for another number of focal levels.

    Its rows are query and context (C each), one gate a level, and the gate of the global context. Query, context,
    the gates of levels that both have and the global gate keep their meaning; gates of new levels are zero.

    Args:
        projection: weight `(2C + L + 1, C)` or bias `(2C + L + 1,)`.
        channels: C.
        levels: L of the result.
    """
    features, gates, global_gate = projection.tensor_split([2 * channels, projection.shape[0] - 1])
    new = projection.new_zeros(max(levels - len(gates), 0), *projection.shape[1:])
    return torch.cat([features, gates[:levels], new, global_gate])


def fit_tensor(name: str, native: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], drop_levels: bool) -> Tensor:
    """The checkpoint's tensor in the shape that the model's has.

    Args:
        name: native name, in the checkpoint and the model.
        native: the checkpoint.
        shapes: the model's shapes by native name.
        drop_levels: allow a model with fewer focal levels than the checkpoint.

    Raises:
        CheckpointError: the tensor cannot fit; the message has both shapes and the knob that probably differs.
    """
    tensor, shape = native[name], shapes[name]
    if tensor.shape == shape:
        return tensor
    if (match := _KERNEL.fullmatch(name)) and tensor.ndim == 4 and tensor.shape[:2] == shape[:2]:
        if (tensor.shape[-1] - shape[-1]) % 2 == 0 and tensor.shape[-1] == tensor.shape[-2]:
            return resize_kernel(tensor, shape[-1])
    elif (match := _PROJECTION.fullmatch(name)) and _width(native, match[1]) == _width(shapes, match[1]):
        channels = shapes[f"{match[1]}.f.weight"][1]
        ours, theirs = (rows - 2 * channels - 1 for rows in (shape[0], tensor.shape[0]))
        if ours < theirs and not drop_levels:
            raise CheckpointError(
                f"{name} has gates for {theirs} focal levels, the model has {ours} there (knob focal_levels); "
                "drop_levels=True drops the levels that the model lacks"
            )
        if theirs > 0:
            return spread_gates(tensor, channels, ours)
    raise CheckpointError(
        f"{name} has shape {tuple(tensor.shape)}, the model needs {tuple(shape)}; "
        f"{suspect_knob(name, tensor.shape, shape)} probably differs"
    )


def count_levels(native: Mapping[str, Tensor], modulation: str) -> int:
    """Focal levels of a modulation, given its native path, as its projection `f` tells; 0 if it is not there."""
    weight = native.get(f"{modulation}.f.weight")
    return 0 if weight is None else weight.shape[0] - 2 * weight.shape[1] - 1


def split_kernel_name(name: str) -> tuple[str, int] | None:
    """Modulation path and focal level of a depth-wise kernel's name; None for all other names."""
    match = _KERNEL.fullmatch(name)
    return (match[1], int(match[2])) if match else None


def suspect_knob(name: str, found: torch.Size | None = None, expected: torch.Size | None = None) -> str:
    """The config knob that probably differs where a tensor of that name is missing, left over or misshapen."""
    if found is not None and expected is not None and len(found) == len(expected):
        if name.endswith("mlp.fc1.weight") and found[1] == expected[1]:
            return "mlp_ratio"
        if name == "patch_embed.proj.weight" and found[2:] != expected[2:]:
            return "use_conv_embed" if 7 in (found[-1], expected[-1]) else "patch_size"
        if name == "patch_embed.proj.weight" and found[0] == expected[0]:
            return "num_channels"
        if name.endswith("downsample.proj.weight") and found[2:] != expected[2:]:
            return "use_conv_embed"
        if split_kernel_name(name) and found[:2] == expected[:2]:
            return "focal_windows"
        if name.startswith("head."):
            return "num_labels" if found[1:] == expected[1:] else "embed_dim"
        if name.startswith("decoder."):
            return "encoder_stride"
        return "embed_dim"
    for pattern, knob in (
        (r"\.gamma_[12]$", "use_layerscale"),
        (r"\.modulation\.ln\.", "use_post_layernorm_in_modulation"),
        (r"\.focal_layers\.", "focal_levels"),
        (r"^layers\.", "depths"),
        (r"^norm\d+\.", "out_features"),
        (r"^head\.", "num_labels"),
    ):
        if re.search(pattern, name):
            return knob
    return ""


def _width(tensors: Mapping[str, Tensor | torch.Size], modulation: str) -> int | None:
    weight = tensors.get(f"{modulation}.f.weight")
    shape = weight.shape if isinstance(weight, Tensor) else weight
    return shape[1] if shape is not None and len(shape) == 2 else None
