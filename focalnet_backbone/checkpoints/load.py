"""Loading a checkpoint into a model: all of it or, on any error, nothing."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from focalnet_backbone.checkpoints.adapt import count_levels, fit_tensor, split_kernel_name, suspect_knob
from focalnet_backbone.checkpoints.detector import fit_dino, is_dino, read_dino
from focalnet_backbone.checkpoints.errors import CheckpointError
from focalnet_backbone.checkpoints.formats import Weights, check_values, recognise
from focalnet_backbone.checkpoints.report import LoadReport, summarise
from focalnet_backbone.checkpoints.sources import Source, open_source
from focalnet_backbone.network.backbone import FocalNetTrunk
from focalnet_backbone.network.config import FocalNetConfig
from focalnet_backbone.system.switches import check_switch

logger = logging.getLogger(__name__)

# Knobs that change what the weights mean, and that no shape shows.
_HIDDEN_KNOBS = ("use_post_layernorm", "normalize_modulator", "hidden_act", "layer_norm_eps")


def load_checkpoint(
    model: nn.Module, source: str | Path | Mapping[str, Any], *, strict: bool = True, drop_levels: bool = False
) -> LoadReport:
    """Load published or trained weights of any format into a FocalNet or a DINO detector, and log the report's line.

    Smaller depth-wise kernels are centred in the model's larger ones, larger ones are cut to their centre; focal
    levels that the checkpoint lacks get zero gates and keep their own kernels. Normal, and only said in the report,
    are output norms that the checkpoint lacks, the kernels of added levels, and a classification head, final norm or
    output norms that the model has no place for. So are the stages of its network that a backbone without their maps
    does not build.

    mmdetection's DINO around a FocalNet takes whole detectors: of FocalNet-DINO, of detrex, and of mmdetection. Of the
    release's 91 classes it takes COCO's 80 if it has so many. Kernels are not resized then, and what no tensor shows
    (the position encoding, `normalize_modulator`) must be as the file needs it.

    Args:
        model: `FocalNet`, one of the models with heads, a subclass of these, or mmdetection's DINO around one.
        source: a weight file (`.safetensors`, `.pth`, `.pt`, `.bin`), a folder that transformers saved, a variant
            name, a hub id (`microsoft/focalnet-tiny`, `repository:file`), an `https://` address, or a state dict.
        strict: False lets any tensor be missing or left over, and leaves alone a classification head (of a detector:
            the class heads and the label embedding) whose number of classes differs.
        drop_levels: leave out focal levels that the model lacks.

    Raises:
        CheckpointError: the source cannot be had or read, holds no FocalNet or NaN, or does not fit in shape or in
            the range of the model's type; the model is left as it was.
        FileNotFoundError: the source is a path where nothing is.
        TypeError: the model is no FocalNet, or the source of no such type.
        ValueError: the model is on the meta device.
    """
    check_switch("strict", strict)
    check_switch("drop_levels", drop_levels)
    whole_detector = is_dino(model)
    if not isinstance(model, FocalNetTrunk) and not whole_detector:
        raise TypeError(
            "model must be a FocalNet, a model derived from it, or mmdetection's DINO around one, "
            f"got {type(model).__name__}"
        )
    target = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
    if any(tensor.is_meta for tensor in target.values()):
        raise ValueError("model is on the meta device, which holds no values; call its to_empty(device=...) first")
    opened = open_source(source)
    if whole_detector:
        return _load_dino(model, opened, strict)
    try:
        weights = recognise(opened.checkpoint)
        check_values(weights.tensors)
        fitted, leftover = _fit(weights.tensors, target, strict, drop_levels)
        differs = _compare_knobs(weights, opened.config, model.config, strict)
        not_built, leftover = _split_off_later_stages(leftover, model)
        ignored, unexpected = _sort_leftover(leftover, target)
        missing, normal = _sort_missing(weights.tensors, target, fitted)
        if strict and (missing or unexpected):
            raise CheckpointError(_explain_misfit(missing, unexpected))
    except CheckpointError as error:
        raise CheckpointError(f"{opened.name}: {error}") from error
    model.load_state_dict(fitted, strict=False)
    report = LoadReport(
        source=opened.name,
        format=weights.format,
        loaded=tuple(name for name in fitted if fitted[name] is weights.tensors[name]),
        resized=tuple(name for name in fitted if fitted[name] is not weights.tensors[name]),
        ignored=(*ignored, *weights.rest),
        not_built=not_built,
        missing=(*missing, *normal),
        unexpected=unexpected,
        differs=differs,
    )
    return _log(report, noteworthy=bool(missing or unexpected or differs))


def _load_dino(model: nn.Module, opened: Source, strict: bool) -> LoadReport:
    try:
        fitted, report = fit_dino(model, read_dino(opened.checkpoint), strict=strict)
    except CheckpointError as error:
        raise CheckpointError(f"{opened.name}: {error}") from error
    model.load_state_dict(fitted, strict=False)
    noteworthy = bool(report.missing or report.unexpected or report.differs)
    return _log(replace(report, source=opened.name), noteworthy)


def _log(report: LoadReport, noteworthy: bool) -> LoadReport:
    logger.log(logging.WARNING if noteworthy else logging.INFO, "%s", report)
    return report


def _compare_knobs(
    weights: Weights, stated: FocalNetConfig | None, config: FocalNetConfig, strict: bool
) -> tuple[str, ...]:
    """Knobs in which the model differs from what the source states, out of those that no shape shows."""
    knobs = (*_HIDDEN_KNOBS, "conv_embed_stem_padding") if config.use_conv_embed else _HIDDEN_KNOBS
    theirs = {} if stated is None else {knob: getattr(stated, knob) for knob in knobs}
    theirs.update(weights.knobs)
    ours = {knob: getattr(config, knob) for knob in theirs}
    differs = tuple(
        f"{knob}: {theirs[knob]} in the source, {ours[knob]} in the model"
        for knob in theirs
        if theirs[knob] != ours[knob]
    )
    if strict and theirs.get("use_post_layernorm") not in (None, ours.get("use_post_layernorm")):
        raise CheckpointError(f"the blocks normalise at another place: {differs[0]}")
    return differs


def _fit(
    tensors: Mapping[str, Tensor], target: Mapping[str, Tensor], strict: bool, drop_levels: bool
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors in the shapes of the model's, and the names of those left over."""
    shapes = {name: tensor.shape for name, tensor in target.items()}
    fitted = {}
    for name in target:
        if name not in tensors:
            continue
        other_classes = name.startswith("head.") and tensors[name].shape != shapes[name]
        if strict or not other_classes:
            fitted[name] = fit_tensor(name, tensors, shapes, drop_levels)
            dtype = target[name].dtype
            if dtype != fitted[name].dtype and not fitted[name].to(dtype).isfinite().all():
                raise CheckpointError(f"{name} has values beyond the range of the model's type {dtype}")
    return fitted, [name for name in tensors if name not in fitted]


def _split_off_later_stages(leftover: list[str], model: FocalNetTrunk) -> tuple[tuple[str, ...], list[str]]:
    """Part the tensors of the network's stages after the last one that the model builds from the others."""
    built = len(model.layers)

    def is_later(name: str) -> bool:
        match = re.match(r"layers\.(\d+)\.(downsample\.)?|norm(\d+)\.", name)
        if match is None:
            return False
        stage = int(match[1] or match[3] or 0)
        return built <= stage < len(model.config.depths) or (match[2] is not None and stage == built - 1)

    later = tuple(filter(is_later, leftover))
    return later, [name for name in leftover if name not in later]


def _sort_leftover(leftover: list[str], target: Mapping[str, Tensor]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Divide the checkpoint's tensors that the model has no place for into normal ones and unexpected ones."""

    def is_normal(name: str) -> bool:
        if re.match(r"head\.|norm\d*\.", name):
            return True
        kernel = split_kernel_name(name)
        # Levels to spare are an error before this, unless they are to be dropped.
        return kernel is not None and kernel[1] >= count_levels(target, kernel[0]) > 0

    ignored = tuple(filter(is_normal, leftover))
    return ignored, tuple(name for name in leftover if name not in ignored)


def _sort_missing(
    tensors: Mapping[str, Tensor], target: Mapping[str, Tensor], fitted: Mapping[str, Tensor]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Divide the model's tensors that the checkpoint lacks into missing ones and normal ones."""

    def is_normal(name: str) -> bool:
        if re.match(r"norm\d+\.", name):
            return True
        kernel = split_kernel_name(name)
        return kernel is not None and kernel[1] >= count_levels(tensors, kernel[0]) > 0

    absent = [name for name in target if name not in fitted]
    normal = tuple(filter(is_normal, absent))
    return tuple(name for name in absent if name not in normal), normal


def _explain_misfit(missing: tuple[str, ...], unexpected: tuple[str, ...]) -> str:
    knob = suspect_knob((missing or unexpected)[0])
    parts = [f"lacks {len(missing)} of the model's tensors ({summarise(missing)})"] if missing else []
    if unexpected:
        parts.append(f"has {len(unexpected)} tensors that the model has no place for ({summarise(unexpected)})")
    hint = f"; {knob} probably differs" if knob else ""
    if missing and all(name.startswith("head.") for name in missing):
        hint = "; it is of a network without a classifier"
    return f"{' and '.join(parts)}{hint}. strict=False loads the others"
