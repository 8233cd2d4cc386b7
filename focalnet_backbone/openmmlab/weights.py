"""Weights of whole models, heads included."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.checkpoints.files import read_file


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict and the meta data of a checkpoint of mmengine's runner or of the reference release.

    Args:
        path: a file or an address.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it cannot be read safely, or holds no state dict.
    """
    if "://" in str(path):
        checkpoint = CheckpointLoader.load_checkpoint(str(path), map_location="cpu")
    else:
        checkpoint = read_file(Path(path))
    weights = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else None
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(f"{path} holds no state dict")
    return {name.removeprefix("module."): value for name, value in weights.items()}, checkpoint.get("meta", {})


def check_fit(model: nn.Module, weights: dict[str, Tensor], source: str | Path) -> None:
    """Raise `CheckpointError` unless the weights hold every tensor of the model; warn of those it has no place for."""
    target = model.state_dict()
    counters = {name for name in target if name.endswith("num_batches_tracked")}
    missing = [name for name in target.keys() - counters if name not in weights]
    misshapen = [name for name in target if name in weights and weights[name].shape != target[name].shape]
    found = {"lacks": sorted(missing), "has in other shapes": misshapen}
    problems = [f"{what} {len(names)} of its tensors ({names[0]}, ...)" for what, names in found.items() if names]
    if problems:
        raise CheckpointError(f"{source} does not fit the config's model: it {' and '.join(problems)}")
    unused = [name for name in weights if name not in target]
    if unused:
        print_log(f"{len(unused)} tensors of {source} are not used ({unused[0]}, ...)", "current", logging.WARNING)
