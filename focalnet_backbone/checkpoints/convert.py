"""Converting a checkpoint of any format into a file of another."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from focalnet_backbone.checkpoints.architecture import infer_config
from focalnet_backbone.checkpoints.errors import CheckpointError
from focalnet_backbone.checkpoints.files import WEIGHT_SUFFIXES
from focalnet_backbone.checkpoints.formats import Weights, check_values, export_state_dict, recognise
from focalnet_backbone.checkpoints.report import summarise
from focalnet_backbone.checkpoints.sources import open_source
from focalnet_backbone.config import FocalNetConfig
from focalnet_backbone.variants import get_variant

TARGETS = ("native", "transformers", "timm", "detectron2", "mmengine")
_FRAMEWORKS = ("detectron2", "mmengine")
_PICKLE_ENDINGS = (".pth", ".pt", ".bin")
_TASK_MODELS = {"classifier": "FocalNetForImageClassification", "decoder.0": "FocalNetForMaskedImageModeling"}


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
        return f"{self.source} ({self.format} format): {written}{left_out}"


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
            its `load_checkpoint` and `Pretrained`). The last two hold the backbone alone.
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
    given = None if variant is None else get_variant(variant).config()
    path = _complete_path(Path(out).expanduser(), to)
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists already; only --force (force=True) replaces it")
    opened = open_source(source)
    try:
        weights = recognise(opened.checkpoint)
        check_values(weights.tensors)
        native = {name: tensor for name, tensor in weights.tensors.items() if _is_wanted(name, to)}
        stated = given or opened.config
        if to == "transformers" and not path.suffix:
            _write_folder(path, native, _require_config(weights, stated))
        elif to == "timm":
            post_norm = weights.knobs.get("use_post_layernorm")
            if post_norm is None:
                post_norm = _require_config(weights, stated).use_post_layernorm
            _write_file(path, export_state_dict(native, to, use_post_layernorm=post_norm))
        else:
            _write_file(path, _wrap(native, to))
    except CheckpointError as error:
        raise CheckpointError(f"{opened.name}: {error}") from error
    left_out = (*(name for name in weights.tensors if name not in native), *weights.rest)
    return ConversionReport(opened.name, weights.format, to, path, tuple(native), left_out)


def _complete_path(out: Path, to: str) -> Path:
    """The path with the ending that its contents will have; none for a transformers folder."""
    endings = _PICKLE_ENDINGS if to in _FRAMEWORKS else (".safetensors", *_PICKLE_ENDINGS)
    if out.suffix in endings:
        return out
    if out.suffix in WEIGHT_SUFFIXES:
        raise ValueError(f"a checkpoint for {to} must end in one of {', '.join(endings)}, got {out}")
    return out if to == "transformers" else out.with_name(out.name + (".pth" if to in _FRAMEWORKS else ".safetensors"))


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


def _wrap(native: dict[str, Tensor], to: str) -> dict[str, Any]:
    """What a file in a format that needs no config holds."""
    if to == "detectron2":
        # With the heuristics, detectron2 finds the backbone's tensors by the ends of their names.
        return {"model": native, "__author__": "focalnet-backbone", "matching_heuristics": True}
    if to == "mmengine":
        return {"meta": {}, "state_dict": {f"backbone.{name}": tensor for name, tensor in native.items()}}
    return export_state_dict(native, to)


def _write_folder(folder: Path, native: dict[str, Tensor], config: FocalNetConfig) -> None:
    """Write what transformers' `from_pretrained` reads."""
    exported = export_state_dict(native, "transformers")
    kind = next((kind for part, kind in _TASK_MODELS.items() if f"{part}.weight" in exported), "FocalNetModel")
    values = {**config.to_dict(), "architectures": [kind]}
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file, not a folder")
    folder.mkdir(parents=True, exist_ok=True)
    _write_file(folder / "model.safetensors", exported)
    _replace(folder / "config.json", lambda path: path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n"))


def _write_file(path: Path, contents: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        tensors = {name: tensor.contiguous() for name, tensor in contents.items()}
        _replace(path, lambda partial: partial.write_bytes(save(tensors, metadata={"format": "pt"})))
    else:
        _replace(path, lambda partial: torch.save(contents, partial))


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file beside its place and move it there when it is whole."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
        partial = Path(folder) / path.name
        write(partial)
        os.replace(partial, path)
