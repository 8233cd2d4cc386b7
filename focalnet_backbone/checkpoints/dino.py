"""Published DINO detectors: the names of FocalNet-DINO ("release") and of detrex, and those of mmdetection's DINO.

Every number stays as it is. Where the release counts COCO's category ids up to 90, mmdetection counts its 80 classes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from focalnet_backbone.checkpoints.errors import CheckpointError

ORIGINS = {"release": "FocalNet-DINO", "detrex": "detrex", "mmdetection": "mmdetection"}
"""What programs a detector's names may be of, and what to call them."""

_UNUSED_IDS = (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_IDS = tuple(i for i in range(91) if i not in _UNUSED_IDS)
"""COCO's category id of each of its 80 classes, in mmdetection's order."""

TEMPERATURE, OFFSET = "positional_encoding.temperature", "positional_encoding.offset"
SETTINGS: Mapping[str, Mapping[str, float]] = {
    "release": {TEMPERATURE: 20, OFFSET: 0.0},
    "detrex": {TEMPERATURE: 10000, OFFSET: -0.5},
    "mmdetection": {},
}
"""Settings of mmdetection's DINO that the weights of each program need, and that no tensor shows."""

_MARKS = {
    "release": ("input_proj.0.0.weight", "transformer.level_embed"),
    "detrex": ("neck.convs.0.conv.weight", "transformer.level_embeds"),
    "mmdetection": ("memory_trans_fc.weight", "dn_query_generator.label_embedding.weight"),
}
_WRAPPERS = ("model", "state_dict", "ema_model")
_CLASS_HEAD = re.compile(r"bbox_head\.cls_branches\.\d+\.(weight|bias)")
LABELS = "dn_query_generator.label_embedding.weight"

_ATTENTION = ("sampling_offsets", "attention_weights", "value_proj", "output_proj")


@dataclass(frozen=True)
class DinoSize:
    """What the names depend on: the backbone's maps, the maps' levels, and the layers of encoder and decoder."""

    maps: int
    levels: int
    encoder: int
    decoder: int


@dataclass(frozen=True)
class DinoWeights:
    """A whole detector's weights.

    Attributes:
        tensors: by mmdetection's names; a name that it has no place for is kept as it was.
        origin: "release", "detrex" or "mmdetection".
        size: what was counted in the names.
        duplicates: names of the source's tensors that it holds once more under other names.
        settings: settings that the weights need, as in `SETTINGS`.
    """

    tensors: dict[str, Tensor]
    origin: str
    size: DinoSize
    duplicates: tuple[str, ...] = ()
    settings: Mapping[str, float] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        """Number of classes of the head."""
        return self.tensors["bbox_head.cls_branches.0.weight"].shape[0]


def recognise_dino(checkpoint: Any) -> DinoWeights | None:
    """The detector in what a file held, with its names in mmdetection's; None if there is none.

    Raises:
        CheckpointError: the detector lacks tensors that its names and settings are told by.
    """
    found = _find(checkpoint)
    if found is None:
        return None
    origin, state_dict = found
    settings = {**SETTINGS[origin], **_stated_settings(checkpoint)}
    try:
        size = _measure(state_dict, origin)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"is a detector of {ORIGINS[origin]} that lacks {error.args[0]}") from None
    if origin == "mmdetection":
        return DinoWeights(dict(state_dict), origin, size, (), settings)
    modules = module_names(origin, size)
    tensors, duplicates = {}, []
    for name, tensor in state_dict.items():
        if re.match(r"transformer\.decoder\.(bbox|class)_embed\.", name):
            duplicates.append(name)
        else:
            tensors[rename(name, modules) or name] = tensor
    if "bbox_head.cls_branches.0.weight" not in tensors or LABELS not in tensors:
        raise CheckpointError(f"is a detector of {ORIGINS[origin]} that lacks its class heads or label embedding")
    if origin == "release":  # Its last row is of no class.
        tensors[LABELS] = tensors[LABELS][: tensors["bbox_head.cls_branches.0.weight"].shape[0]]
    return DinoWeights(tensors, origin, size, tuple(duplicates), settings)


def pick_coco_classes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The 80 rows of COCO's classes out of the release's 91, in heads and label embedding."""
    ids = torch.tensor(COCO_IDS)
    return {name: tensor[ids] if is_of_classes(name) else tensor for name, tensor in tensors.items()}


def is_of_classes(name: str) -> bool:
    """Whether the rows of a tensor, by mmdetection's name, are classes."""
    return name == LABELS or _CLASS_HEAD.fullmatch(name) is not None


def export_release(weights: DinoWeights) -> dict[str, Any]:
    """A checkpoint as FocalNet-DINO writes them, without its training state.

    80 classes become 91 by COCO's ids, where the rows of unused ids score nothing. The release shares the heads of the
    decoder's layers unless it is told otherwise (`dec_pred_class_embed_share`, `dec_pred_bbox_embed_share`): a detector
    that was trained in mmdetection needs both set to False there.

    Returns:
        `{"model": tensors by name, "settings": as in SETTINGS}`.

    Raises:
        CheckpointError: the release has no place for a tensor or setting.
    """
    if weights.settings.get(OFFSET, 0.0) != 0.0:
        raise CheckpointError(f"{ORIGINS['release']} has no place for {OFFSET}={weights.settings[OFFSET]}")
    modules = {theirs: ours for ours, theirs in module_names("release", weights.size).items()}
    spread = weights.classes == len(COCO_IDS)
    model = {}
    for name, tensor in weights.tensors.items():
        if spread and is_of_classes(name):
            tensor = _spread_classes(name, tensor)
        if name == LABELS:
            tensor = torch.cat([tensor, tensor.new_zeros(1, tensor.shape[1])])
        renamed = rename(name, modules)
        if renamed is None:
            raise CheckpointError(f"{ORIGINS['release']} has no place for {name}")
        model[renamed] = tensor
        if renamed.startswith(("bbox_embed.", "class_embed.")):
            model[f"transformer.decoder.{renamed}"] = tensor
    return {"model": model, "settings": dict(weights.settings)}


def _spread_classes(name: str, tensor: Tensor) -> Tensor:
    # A bias of -20 is a score of 2e-9: such a class is never chosen.
    spread = torch.full((91, *tensor.shape[1:]), -20.0 if name.endswith(".bias") else 0.0, dtype=tensor.dtype)
    spread[torch.tensor(COCO_IDS)] = tensor.cpu()
    return spread


def rename(name: str, modules: Mapping[str, str]) -> str | None:
    """A tensor's name with its module (or the whole of it) looked up, or None if it is not there."""
    if name in modules:
        return modules[name]
    backbone = next(iter(modules))
    if name.startswith(backbone):
        return modules[backbone] + name.removeprefix(backbone)
    module, _, tail = name.rpartition(".")
    return f"{modules[module]}.{tail}" if module in modules else None


def module_names(origin: str, size: DinoSize) -> dict[str, str]:
    """mmdetection's name of each module and lone tensor of a detector of the release or of detrex.

    The first entry is not of a module, but the beginning of every name in the backbone.
    """
    return dict((_release_names if origin == "release" else _detrex_names)(size))


def _common_names() -> Iterator[tuple[str, str]]:
    yield "transformer.tgt_embed", "query_embedding"
    yield "transformer.enc_output", "memory_trans_fc"
    yield "transformer.enc_output_norm", "memory_trans_norm"
    yield "transformer.decoder.norm", "decoder.norm"
    yield "label_enc", "dn_query_generator.label_embedding"
    for i in range(2):
        yield f"transformer.decoder.ref_point_head.layers.{i}", f"decoder.ref_point_head.layers.{i}"


def _release_names(size: DinoSize) -> Iterator[tuple[str, str]]:
    yield "backbone.0.", "backbone."
    yield "transformer.level_embed", "level_embed"
    yield from _common_names()
    for i in range(size.levels):
        conv = f"neck.convs.{i}" if i < size.maps else f"neck.extra_convs.{i - size.maps}"
        yield f"input_proj.{i}.0", f"{conv}.conv"
        yield f"input_proj.{i}.1", f"{conv}.gn"
    for part, layers in (("encoder", size.encoder), ("decoder", size.decoder)):
        for i in range(layers):
            theirs, ours = f"transformer.{part}.layers.{i}", f"{part}.layers.{i}"
            yield f"{theirs}.linear1", f"{ours}.ffn.layers.0.0"
            yield f"{theirs}.linear2", f"{ours}.ffn.layers.1"
            deformable = "self_attn" if part == "encoder" else "cross_attn"
            for linear in _ATTENTION:
                yield f"{theirs}.{deformable}.{linear}", f"{ours}.{deformable}.{linear}"
            # The decoder's norms are numbered in another order than they are applied in.
            for j, norm in enumerate(("norm1", "norm2") if part == "encoder" else ("norm2", "norm1", "norm3")):
                yield f"{theirs}.{norm}", f"{ours}.norms.{j}"
            if part == "decoder":
                yield f"{theirs}.self_attn", f"{ours}.self_attn.attn"
                yield f"{theirs}.self_attn.out_proj", f"{ours}.self_attn.attn.out_proj"
    for i in range(size.decoder + 1):
        of_proposals = i == size.decoder
        box = "transformer.enc_out_bbox_embed" if of_proposals else f"bbox_embed.{i}"
        yield "transformer.enc_out_class_embed" if of_proposals else f"class_embed.{i}", f"bbox_head.cls_branches.{i}"
        for j in range(3):
            yield f"{box}.layers.{j}", f"bbox_head.reg_branches.{i}.{2 * j}"


def _detrex_names(size: DinoSize) -> Iterator[tuple[str, str]]:
    yield "backbone.", "backbone."
    yield "transformer.level_embeds", "level_embed"
    yield from _common_names()
    for i in range(size.levels):
        conv = f"neck.convs.{i}" if i < size.maps else f"neck.extra_convs.{i - size.maps}"
        yield f"{conv}.conv", f"{conv}.conv"
        yield f"{conv}.norm", f"{conv}.gn"
    for part, layers in (("encoder", size.encoder), ("decoder", size.decoder)):
        for i in range(layers):
            theirs, ours = f"transformer.{part}.layers.{i}", f"{part}.layers.{i}"
            for path in ("layers.0.0", "layers.1"):
                yield f"{theirs}.ffns.0.{path}", f"{ours}.ffn.{path}"
            for j in range(2 if part == "encoder" else 3):
                yield f"{theirs}.norms.{j}", f"{ours}.norms.{j}"
            number, deformable = (0, "self_attn") if part == "encoder" else (1, "cross_attn")
            for linear in _ATTENTION:
                yield f"{theirs}.attentions.{number}.{linear}", f"{ours}.{deformable}.{linear}"
            if part == "decoder":
                yield f"{theirs}.attentions.0.attn", f"{ours}.self_attn.attn"
                yield f"{theirs}.attentions.0.attn.out_proj", f"{ours}.self_attn.attn.out_proj"
    for i in range(size.decoder + 1):
        yield f"class_embed.{i}", f"bbox_head.cls_branches.{i}"
        for j in range(3):
            yield f"bbox_embed.{i}.layers.{j}", f"bbox_head.reg_branches.{i}.{2 * j}"


def _find(checkpoint: Any) -> tuple[str, dict[str, Tensor]] | None:
    """The origin and the tensors of the detector that a file held, by their own names without `module.`."""
    if not isinstance(checkpoint, Mapping):
        return None
    for candidate in (checkpoint, *(checkpoint.get(key) for key in _WRAPPERS)):
        if not isinstance(candidate, Mapping):
            continue
        tensors = {
            str(name).removeprefix("module."): tensor.detach()
            for name, tensor in candidate.items()
            if isinstance(tensor, Tensor)
        }
        for origin, marks in _MARKS.items():
            if all(mark in tensors for mark in marks):
                return origin, tensors
    return None


def _stated_settings(checkpoint: Mapping[str, Any]) -> dict[str, float]:
    """The settings that a file of our own states, or the config in a training checkpoint of mmengine."""
    stated, meta = checkpoint.get("settings"), checkpoint.get("meta")
    if isinstance(stated, Mapping):
        return {name: stated[name] for name in (TEMPERATURE, OFFSET) if isinstance(stated.get(name), int | float)}
    text = meta.get("cfg") if isinstance(meta, Mapping) else None
    try:
        config = ast.parse(text if isinstance(text, str) else "")
    except SyntaxError:
        return {}
    part, _, _ = TEMPERATURE.partition(".")
    return {
        f"{part}.{setting.arg}": value
        for call in ast.walk(config)
        if isinstance(call, ast.keyword) and call.arg == part and isinstance(call.value, ast.Call)
        for setting in call.value.keywords
        if f"{part}.{setting.arg}" in (TEMPERATURE, OFFSET) and isinstance(value := _number(setting.value), int | float)
    }


def _number(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _measure(tensors: Mapping[str, Tensor], origin: str) -> DinoSize:
    """What the names depend on. Raises `KeyError` or `ValueError` with the name of what is missing."""
    prefix = "" if origin == "mmdetection" else "transformer."
    embedding = {"release": "transformer.level_embed", "detrex": "transformer.level_embeds"}.get(origin, "level_embed")
    levels = tensors[embedding].shape[0]
    if origin == "release":
        kernels = [tensors[f"input_proj.{i}.0.weight"].shape[-1] for i in range(levels)]
        maps = sum(kernel == 1 for kernel in kernels)
    else:
        maps = _count(tensors, "neck.convs")
    layers = [_count(tensors, f"{prefix}{part}.layers") for part in ("encoder", "decoder")]
    return DinoSize(maps, levels, *layers)


def _count(tensors: Mapping[str, Tensor], path: str) -> int:
    indices = {int(m[1]) for name in tensors if (m := re.match(rf"{re.escape(path)}\.(\d+)\.", name))}
    if not indices:
        raise ValueError(f"{path}.0")
    return len(indices)
