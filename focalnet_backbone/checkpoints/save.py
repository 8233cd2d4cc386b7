"""Writing weight files and transformers folders, whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from focalnet_backbone.checkpoints.formats import export_state_dict
from focalnet_backbone.config import CONFIG_FILE, FocalNetConfig

_TASK_MODELS = {"head.weight": "FocalNetForImageClassification", "mask_token": "FocalNetForMaskedImageModeling"}


def save_weights(path: Path, contents: Mapping[str, Any]) -> None:
    """Write tensors by name to a `.safetensors` file, or anything that `torch.save` takes to one of another ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        tensors = {name: tensor.contiguous() for name, tensor in contents.items()}
        replace_file(path, lambda partial: partial.write_bytes(save(tensors, metadata={"format": "pt"})))
    else:
        replace_file(path, lambda partial: torch.save(dict(contents), partial))


def save_transformers(folder: Path, native: Mapping[str, Tensor], config: FocalNetConfig) -> None:
    """Write a folder that transformers' `from_pretrained` opens: `model.safetensors` and `config.json`.

    Args:
        folder: made if need be.
        native: tensors by native name.
        config: architecture of the model that they are from.

    Raises:
        CheckpointError: transformers has no place for a tensor. Nothing is written.
        TypeError: `config.hidden_act` is a callable, which the file cannot hold. Nothing is written.
    """
    exported = export_state_dict(native, "transformers")
    model = next((model for name, model in _TASK_MODELS.items() if name in native), "FocalNetModel")
    values = {**json.loads(config.to_json_string()), "architectures": [model]}
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / "model.safetensors", exported)
    text = json.dumps(values, indent=2, sort_keys=True) + "\n"
    replace_file(folder / CONFIG_FILE, lambda partial: partial.write_text(text, encoding="utf-8"))


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` make the file under another name, and rename it when it is whole.

    Whatever goes wrong, `path` is either as it was or as it should be, and nothing else is left behind.
    """
    partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
