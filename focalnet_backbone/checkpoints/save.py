"""Writing weight files and transformers folders, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from focalnet_backbone.checkpoints.formats import export_state_dict
from focalnet_backbone.network.config import CONFIG_FILE, FocalNetConfig
from focalnet_backbone.system.files import whole_file
from focalnet_backbone.system.inputs import parse_json

_TASK_MODELS = {"head.weight": "FocalNetForImageClassification", "mask_token": "FocalNetForMaskedImageModeling"}


def save_weights(path: Path, contents: Mapping[str, Any]) -> None:
    """Write tensors by name to a `.safetensors` file, or anything that `torch.save` takes to one of another ending."""
    with whole_file(path) as unfinished:
        if path.suffix == ".safetensors":
            # Copies, as the format refuses tensors that share memory.
            tensors = {name: x.clone(memory_format=torch.contiguous_format) for name, x in contents.items()}
            unfinished.write_bytes(save(tensors, metadata={"format": "pt"}))
        else:
            torch.save(dict(contents), unfinished)


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
    values = {**parse_json(config.to_json_string()), "architectures": [model]}
    save_weights(folder / "model.safetensors", exported)
    with whole_file(folder / CONFIG_FILE) as unfinished:
        unfinished.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
