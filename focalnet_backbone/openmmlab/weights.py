"""Weights of whole models, heads included."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.checkpoints.dino import pick_coco_classes, recognise_dino
from focalnet_backbone.checkpoints.formats import check_finite


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict and the meta data of a checkpoint of mmengine's runner or of the reference release.

    A DINO detector of FocalNet-DINO or detrex gets mmdetection's names, and COCO's 80 classes of the release's 91.

    Args:
        path: a file, an address, or another name that mmengine reads weights by.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it cannot be read safely, or holds no state dict.
    """
    checkpoint = _read(path)
    detector = recognise_dino(checkpoint)
    if detector is not None and detector.origin != "mmdetection":
        return (pick_coco_classes(detector.tensors) if detector.classes == 91 else detector.tensors), {}
    weights = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, Mapping) else None
    if (
        not isinstance(weights, Mapping)
        or not weights
        or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items())
    ):
        raise CheckpointError(f"{path} holds no state dict")
    meta = checkpoint.get("meta")
    return {name.removeprefix("module."): value for name, value in weights.items()}, (
        meta if isinstance(meta, dict) else {}
    )


def check_resumable(path: str | Path) -> None:
    """Raise `CheckpointError` unless mmengine's runner can go on from a checkpoint."""
    read_weights(path)
    checkpoint = _read(path)
    meta, hub = checkpoint.get("meta"), checkpoint.get("message_hub")
    numbers = [meta.get(name) if isinstance(meta, dict) else None for name in ("epoch", "iter")]
    parts = [
        hub.get(name) if isinstance(hub, dict) else None for name in ("log_scalars", "runtime_info", "resumed_keys")
    ]
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        lacks = "meta.epoch and meta.iter, whole numbers"
    elif not all(isinstance(part, dict) for part in parts):
        lacks = "the message_hub"
    elif not isinstance(checkpoint.get("optimizer", {}), dict):
        lacks = "a state of the optimizer"
    else:
        return
    raise CheckpointError(
        f"{path} is no checkpoint to go on from: it lacks {lacks}. load_from=... starts a training from its weights"
    )


def check_fit(model: nn.Module, weights: dict[str, Tensor], source: str | Path) -> None:
    """Raise `CheckpointError` unless the weights hold every tensor of the model, and no NaN or infinity.

    Warns of those that the model has no place for.
    """
    target = model.state_dict()
    counters = {name for name in target if name.endswith("num_batches_tracked")}
    missing = [name for name in target.keys() - counters if name not in weights]
    misshapen = [name for name in target if name in weights and weights[name].shape != target[name].shape]
    found = {"lacks": sorted(missing), "has in other shapes": misshapen}
    problems = [f"{what} {len(names)} of its tensors ({names[0]}, ...)" for what, names in found.items() if names]
    if problems:
        raise CheckpointError(f"{source} does not fit the config's model: it {' and '.join(problems)}")
    check_numbers(model, weights, source)
    unused = [name for name in weights if name not in target]
    if unused:
        print_log(f"{len(unused)} tensors of {source} are not used ({unused[0]}, ...)", "current", logging.WARNING)


def check_numbers(model: nn.Module, weights: dict[str, Tensor], source: str | Path) -> None:
    """Raise `CheckpointError` if NaN or infinities would get into the model."""
    try:
        check_finite(model, weights)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error


def _read(path: str | Path) -> Any:
    try:
        return CheckpointLoader.load_checkpoint(str(path), map_location="cpu", logger="silent")
    except FileNotFoundError:
        raise
    except OSError as error:  # of a store's client, which may not name the file
        raise CheckpointError(f"{path} cannot be read: {error}") from error
