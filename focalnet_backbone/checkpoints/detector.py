"""Loading a published DINO detector into mmdetection's: all of it or, on any error, nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from focalnet_backbone.checkpoints.adapt import suspect_knob
from focalnet_backbone.checkpoints.dino import (
    COCO_IDS,
    OFFSET,
    ORIGINS,
    TEMPERATURE,
    DinoWeights,
    is_of_classes,
    pick_coco_classes,
    recognise_dino,
)
from focalnet_backbone.checkpoints.errors import CheckpointError
from focalnet_backbone.checkpoints.formats import check_values
from focalnet_backbone.checkpoints.report import LoadReport, summarise
from focalnet_backbone.network.backbone import FocalNetTrunk

# Which setting of the model probably differs where a tensor does not fit or one is missing or left over.
_SUSPECTS = (
    (r"level_embed", "num_feature_levels"),
    (r"neck\.(extra_)?convs\.\d+\.conv\.bias", "neck.bias"),
    (r"neck\.", "neck.num_outs or neck.in_channels"),
    (r"query_embedding\.", "num_queries"),
    (r"(encoder|decoder)\.layers\.\d+\.ffn\.", "feedforward_channels"),
    (r"(encoder|decoder)\.layers\.", "num_layers"),
    (r"backbone\.norm\d", "backbone.out_indices"),
)


def is_dino(model: nn.Module) -> bool:
    """Whether a model is mmdetection's DINO (or a class derived from it) around a FocalNet."""
    parts = ("memory_trans_fc", "dn_query_generator", "query_embedding", "bbox_head", "positional_encoding")
    return isinstance(getattr(model, "backbone", None), FocalNetTrunk) and all(hasattr(model, part) for part in parts)


def fit_dino(
    model: nn.Module, weights: DinoWeights, *, strict: bool = True, any_classes: bool = False
) -> tuple[dict[str, Tensor], LoadReport]:
    """The weights that go into a model, and what is to be said of them (with no `source` yet).

    Args:
        model: mmdetection's DINO around a FocalNet; left as it is.
        weights: as `recognise_dino` gives them.
        strict: False lets tensors be missing or left over and settings differ, and takes any number of classes.
        any_classes: take any number of classes: heads and label embedding then keep the model's values.

    Raises:
        CheckpointError: the weights are damaged, or do not fit.
    """
    check_values(weights.tensors)
    target = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
    tensors = weights.tensors
    classes = target["bbox_head.cls_branches.0.weight"].shape[0]
    if (weights.classes, classes) == (91, len(COCO_IDS)):
        tensors = pick_coco_classes(tensors)
    elif weights.classes != classes and (any_classes or not strict):
        tensors = {name: tensor for name, tensor in tensors.items() if not is_of_classes(name)}
    elif weights.classes != classes:
        raise CheckpointError(f"has {weights.classes} classes, the model {classes} (bbox_head.num_classes)")
    differs = compare_settings(model, weights)
    if strict and differs:
        raise CheckpointError(f"does not fit the model's settings: {'; '.join(differs)}")
    for name in target:
        if name in tensors and tensors[name].shape != target[name].shape:
            raise CheckpointError(_explain_shape(name, tensors[name].shape, target[name].shape))
    missing = tuple(name for name in target if name not in tensors)
    unexpected = tuple(name for name in tensors if name not in target)
    # The compiled weights of other classes are missing on purpose.
    absent = [name for name in missing if not is_of_classes(name) or weights.classes == classes]
    if strict and (absent or unexpected):
        raise CheckpointError(_explain_names(absent, unexpected))
    fitted = {name: tensor for name, tensor in tensors.items() if name in target}
    for name, tensor in fitted.items():
        dtype = target[name].dtype
        if dtype != tensor.dtype and not tensor.to(dtype).isfinite().all():
            raise CheckpointError(f"{name} has values beyond the range of the model's type {dtype}")
    report = LoadReport(
        source="",
        format=ORIGINS[weights.origin],
        loaded=tuple(name for name in fitted if fitted[name] is weights.tensors[name]),
        resized=tuple(name for name in fitted if fitted[name] is not weights.tensors[name]),
        ignored=weights.duplicates,
        missing=missing,
        unexpected=unexpected,
        differs=differs,
    )
    return fitted, report


def read_dino(checkpoint: Any) -> DinoWeights:
    """The detector in what a file held. Raises `CheckpointError` if there is none."""
    weights = recognise_dino(checkpoint)
    if weights is None:
        found = (
            ", ".join(map(str, list(checkpoint)[:3])) if isinstance(checkpoint, Mapping) else type(checkpoint).__name__
        )
        raise CheckpointError(
            f"holds no DINO detector of {', '.join(ORIGINS.values())}: it has {found or 'nothing'}; "
            "to load a backbone alone, give the model's backbone"
        )
    return weights


def compare_settings(model: nn.Module, weights: DinoWeights) -> tuple[str, ...]:
    """Settings in which a model differs from what the weights need, out of those that no tensor shows."""
    config, encoding = model.backbone.config, model.positional_encoding
    ours: dict[str, Any] = {
        TEMPERATURE: encoding.temperature,
        OFFSET: encoding.offset,
        "backbone.normalize_modulator": config.normalize_modulator,
        "backbone.conv_embed_stem_padding": config.conv_embed_stem_padding,
    }
    theirs = dict(weights.settings)
    published = weights.origin in ("release", "detrex") and "backbone.normalize_modulator" not in theirs
    # FocalNet-L with 4 focal levels: the release divides its modulator, detrex does not.
    if published and config.embed_dim == 192 and set(config.focal_levels) == {4}:
        theirs["backbone.normalize_modulator"] = weights.origin == "release"
    if published and config.use_conv_embed:
        theirs.setdefault("backbone.conv_embed_stem_padding", 2)
    return tuple(
        f"{name}: {theirs[name]} in the source, {ours[name]} in the model"
        for name in ours
        if name in theirs and theirs[name] != ours[name]
    )


def model_settings(model: nn.Module) -> dict[str, float]:
    """The settings of a model, out of those that no tensor shows, for a file that is exported from it."""
    return {TEMPERATURE: model.positional_encoding.temperature, OFFSET: model.positional_encoding.offset}


def _suspect(name: str, found: torch.Size | None = None, expected: torch.Size | None = None) -> str:
    if found is not None and re.search(r"_attn\.(sampling_offsets|attention_weights)\.", name):
        return "num_levels of the attention"
    for pattern, setting in _SUSPECTS:
        if re.match(pattern, name):
            return setting
    if name.startswith("backbone."):
        return f"backbone.{suspect_knob(name.removeprefix('backbone.'), found, expected)}"
    return ""


def _explain_shape(name: str, found: torch.Size, expected: torch.Size) -> str:
    setting = _suspect(name, found, expected)
    hint = f"; {setting} probably differs" if setting else ""
    return f"{name} has shape {tuple(found)}, the model needs {tuple(expected)}{hint}"


def _explain_names(missing: list[str], unexpected: tuple[str, ...]) -> str:
    parts = [f"lacks {len(missing)} of the model's tensors ({summarise(missing)})"] if missing else []
    if unexpected:
        parts.append(f"has {len(unexpected)} tensors that the model has no place for ({summarise(unexpected)})")
    # What is to spare tells more than what lacks: a level, a map, a bias.
    setting = _suspect([*unexpected, *missing][0])
    hint = f"; {setting} probably differs" if setting else ""
    return f"{' and '.join(parts)}{hint}"
