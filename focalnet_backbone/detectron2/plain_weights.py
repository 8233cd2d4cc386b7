"""Weights for models without a FocalNet: detectron2's ways of finding them, with nothing run that is in a file."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from torch import Tensor, nn

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.checkpoints.files import read_file

MATCHING = "?matching_heuristics=True"
"""Behind a file's path or address, it asks detectron2 to match tensors by the ends of their names."""


def read_weights(path: Path, *, matching: bool) -> dict[str, Any]:
    """What a file of weights holds, in detectron2's form: tensors under `"model"`, and how they are named.

    Args:
        path: of torch or safetensors, or detectron2's own kind: a pickle of arrays (`R-50.pkl`).
        matching: whether names are to be matched by their ends.

    Raises `CheckpointError` if it is none of these.
    """
    content = _read_arrays(path) if _is_bare_pickle(path) else read_file(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds no weights, but a {type(content).__name__}")
    if not isinstance(content.get("model"), Mapping):
        # As of Caffe2, whose detectors have their tensors under "blobs", and its classifiers at the top.
        arrays = any(isinstance(value, np.ndarray) for value in content.values()) or "blobs" in content
        content = {"model": content.get("blobs", content), **({"__author__": "Caffe2"} if arrays else {})}
    tensors = {
        str(name).removeprefix("module."): value if isinstance(value, Tensor) else torch.from_numpy(value)
        for name, value in content["model"].items()
        if not str(name).endswith("_momentum")
        and (isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "bfiu"))
    }
    matching = matching or content.get("__author__") == "Caffe2" or bool(content.get("matching_heuristics"))
    return {**content, "model": tensors, "matching_heuristics": matching}


def fit_names(model: nn.Module, weights: dict[str, Any], where: str) -> dict[str, Tensor]:
    """A file's tensors by the names that they have in a model. Raises `CheckpointError` if none fits."""
    ours, tensors = model.state_dict(), weights["model"]
    if weights["matching_heuristics"]:
        tensors = align_and_update_state_dicts(ours, tensors, c2_conversion=weights.get("__author__") == "Caffe2")
    if not any(name in ours and ours[name].shape == tensor.shape for name, tensor in tensors.items()):
        raise CheckpointError(f"{where}: none of its {len(tensors)} tensors fits the model by name and shape")
    return tensors


def _is_bare_pickle(path: Path) -> bool:
    """Whether a file is a pickle as detectron2's model zoo has them, and not one of torch's, which begin otherwise."""
    if path.suffix != ".pkl":
        return False
    with path.open("rb") as file:
        start = file.read(16)
    magic = bytes.fromhex("6cfc9c46f9206aa85019")
    return start[:1] == pickle.PROTO and magic not in start


def _new_array(kind: type, shape: tuple[int, ...], typecode: bytes) -> np.ndarray:
    """What numpy's `_reconstruct` makes for a pickle to fill: of no size, whatever the pickle asks for."""
    return np.ndarray((0,), "b")


class _ArraysOnly(pickle.Unpickler):
    """Reads pickles of dicts, plain values and arrays of numbers, and refuses all that could run."""

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle may ask for."""
        numpys = module.replace("numpy._core", "numpy.core")
        if (numpys, name) == ("numpy.core.multiarray", "_reconstruct"):
            return _new_array
        if (numpys, name) == ("numpy.core.multiarray", "scalar"):
            return _scalar
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):
            return _encode
        raise CheckpointError(f"it asks for {module}.{name}, and could run code when it is loaded; it was refused")


def _scalar(dtype: np.dtype, data: bytes) -> Any:
    return np.frombuffer(data, dtype)[0].item()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    return text.encode(encoding)


def _read_arrays(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _ArraysOnly(file, encoding="latin1").load()
    except CheckpointError as error:
        raise CheckpointError(f"{path} is a pickle that needs more than arrays: {error}") from error
    except Exception as error:  # A damaged pickle can raise anything.
        raise CheckpointError(f"{path} is a cut-off or damaged pickle: {type(error).__name__}: {error}") from error
