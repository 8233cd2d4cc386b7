"""Converting a checkpoint of any format into a file of another."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from focalnet_backbone.checkpoints.architecture import infer_config
from focalnet_backbone.checkpoints.detector import read_dino
from focalnet_backbone.checkpoints.dino import ORIGINS, export_release, pick_coco_classes
from focalnet_backbone.checkpoints.errors import CheckpointError
from focalnet_backbone.checkpoints.files import WEIGHT_SUFFIXES
from focalnet_backbone.checkpoints.formats import Weights, check_values, export_state_dict, recognise
from focalnet_backbone.checkpoints.report import summarise
from focalnet_backbone.checkpoints.save import save_transformers, save_weights
from focalnet_backbone.checkpoints.sources import Source, open_source
from focalnet_backbone.network.config import FocalNetConfig
from focalnet_backbone.system.command_line import printable

logger = logging.getLogger(__name__)

TARGETS = ("native", "transformers", "timm", "detectron2", "mmengine", "mmdet", "focalnet-dino")
_FRAMEWORKS = ("detectron2", "mmengine")
_DETECTORS = ("mmdet", "focalnet-dino")
_ENDINGS = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True)
class ConversionReport:
    """What `convert_checkpoint` did. `str()` is one line.

    Attributes:
        source: what was converted.
        format: its format: "native", "transformers" or "timm".
        target: format of the result, out of `TARGETS`.
        path: the file or folder written.
        converted: native names of the tensors written.
        left_out: names of the source's tensors that were not.
    """

    source: str
    format: str
    target: str
    path: Path
    converted: tuple[str, ...]
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        left_out = f", left out {len(self.left_out)} ({summarise(self.left_out)})" if self.left_out else ""
        written = f"wrote {len(self.converted)} tensors to {self.path} ({self.target} format)"
        return printable(f"{self.source} ({self.format} format): {written}{left_out}")


def convert_checkpoint(
    source: str | Path | Mapping[str, Any],
    out: str | Path,
    to: str,
    *,
    variant: str | None = None,
    force: bool = False,
) -> ConversionReport:
    """Convert a checkpoint into another format, every number untouched.

    Args:
        source: whatever `load_checkpoint` takes.
        out: the file to write. `.safetensors`, `.pth`, `.pt` and `.bin` decide what it will be; any other ending is
            completed to `.safetensors` (`.pth` for detectron2 and mmengine, which read nothing else), but means a
            folder with `config.json` for transformers.
        to: "native", "transformers", "timm", "detectron2" (for its `DetectionCheckpointer`) or "mmengine" (for
            its `load_checkpoint` and `Pretrained`), which hold the backbone alone; for a whole DINO detector, "mmdet"
            (mmdetection's names, with COCO's 80 classes of the release's 91) or "focalnet-dino" (the release's).
        variant: name of a published model of the same family. timm's names and transformers' config tell of things
            that no shape shows; without a name they are taken from the source where it says them, and else from the
            published model with these shapes.
        force: replace what is at `out`.

    Raises:
        CheckpointError: the source cannot be had or read, has a tensor that the format has no place for, or its
            architecture cannot be told. Nothing is written.
        FileExistsError: there is something at `out`.
        ValueError, KeyError: `to` or `variant` is none of the names there are, or `out` has the wrong ending.
    """
    if to not in TARGETS:
        raise ValueError(f"to must be one of {TARGETS}, got {to!r}")
    given = None if variant is None else FocalNetConfig.from_variant(variant)
    path = _complete_path(Path(os.path.expanduser(out)), to)
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists already; only --force (force=True) replaces it")
    opened = open_source(source)
    if to in _DETECTORS:
        return _convert_detector(opened, path, to)
    try:
        weights = recognise(opened.checkpoint)
        check_values(weights.tensors)
        native = {name: tensor for name, tensor in weights.tensors.items() if _is_wanted(name, to)}
        _write(path, native, to, weights, given or opened.config)
    except CheckpointError as error:
        raise CheckpointError(f"{opened.name}: {error}") from error
    left_out = (*(name for name in weights.tensors if name not in native), *weights.rest)
    return ConversionReport(opened.name, weights.format, to, path, tuple(native), left_out)


def _convert_detector(opened: Source, path: Path, to: str) -> ConversionReport:
    try:
        weights = read_dino(opened.checkpoint)
        check_values(weights.tensors)
        if weights.classes == 91:
            weights = replace(weights, tensors=pick_coco_classes(weights.tensors))
        if to == "mmdet":
            written = weights.tensors
            save_weights(path, {"meta": {}, "state_dict": written, "settings": dict(weights.settings)})
        else:
            content = export_release(weights)
            written = content["model"]
            save_weights(path, content)
    except CheckpointError as error:
        raise CheckpointError(f"{opened.name}: {error}") from error
    return ConversionReport(opened.name, ORIGINS[weights.origin], to, path, tuple(written), weights.duplicates)


def _write(path: Path, native: dict[str, Tensor], to: str, weights: Weights, stated: FocalNetConfig | None) -> None:
    if to == "transformers" and path.suffix not in _ENDINGS:
        save_transformers(path, native, _require_config(weights, stated))
    elif to == "timm":
        post_norm = weights.knobs.get("use_post_layernorm")
        if post_norm is None:
            config = _require_config(weights, stated)
            post_norm = config.use_post_layernorm
            if config.normalize_modulator:
                logger.warning("timm's model needs normalize_modulator=True for these weights, or its outputs differ")
        save_weights(path, export_state_dict(native, to, use_post_layernorm=post_norm))
    elif to == "detectron2":
        # With the heuristics, detectron2 finds the backbone's tensors by the ends of their names.
        save_weights(path, {"model": native, "__author__": "focalnet-backbone", "matching_heuristics": True})
    elif to == "mmengine":
        save_weights(path, {"meta": {}, "state_dict": {f"backbone.{name}": native[name] for name in native}})
    else:
        save_weights(path, export_state_dict(native, to))


def _complete_path(out: Path, to: str) -> Path:
    """The path with the ending that its contents will have; none for a transformers folder."""
    if not out.name:
        raise ValueError(f"out must name a file or folder, got '{out}'")
    endings = _ENDINGS[1:] if to in (*_FRAMEWORKS, *_DETECTORS) else _ENDINGS
    if out.suffix in endings:
        return out
    if out.suffix in WEIGHT_SUFFIXES:
        raise ValueError(f"a checkpoint for {to} must end in one of {', '.join(endings)}, got {out}")
    return (
        out
        if to == "transformers"
        else out.with_name(out.name + (".pth" if to in (*_FRAMEWORKS, *_DETECTORS) else ".safetensors"))
    )


def _is_wanted(name: str, to: str) -> bool:
    """Whether a native tensor goes into the file: for the detection frameworks, only those of the backbone."""
    return to not in _FRAMEWORKS or re.match(r"patch_embed\.|layers\.|norm\d+\.", name) is not None


def _require_config(weights: Weights, stated: FocalNetConfig | None) -> FocalNetConfig:
    config = infer_config(weights, stated)
    if config is None:
        raise CheckpointError(
            "does not tell its whole architecture (such as where the blocks normalise), and no published model has "
            "these shapes; name one of the same family with --variant (variant=...)"
        )
    return config
