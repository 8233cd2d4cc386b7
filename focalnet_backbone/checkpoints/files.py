"""Reading weight files without running anything that is in them."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from focalnet_backbone.checkpoints.errors import CheckpointError

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".pkl", ".ckpt")
"""Endings of files that may hold weights."""
# Names under which transformers and timm save weights, best first.
_USUAL_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_PICKLE_START = b"\x80"


class _Inert:
    """Stands in for an object that is no weight: takes what a pickle gives it, and does nothing with it."""

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _stand_in(path: str) -> type:
    module, _, name = path.rpartition(".")
    return type(name, (_Inert,), {"__module__": module})


# What training programs keep beside the weights: mmengine's log history, and the command line of the DINO release. The
# real classes are not run.
_BESIDE_WEIGHTS = [
    _stand_in(path)
    for path in (
        "mmengine.logging.history_buffer.HistoryBuffer",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy.ndarray",
        "numpy.dtype",
        "builtins.getattr",
        "argparse.Namespace",
    )
]


def read_file(path: Path) -> Any:
    """What a `.safetensors`, `.pth`, `.pt` or `.bin` file holds, on the CPU. The content decides, not the name.

    Raises:
        CheckpointError: the file is empty, cut off, no weight file, or a pickle that needs more than tensors.
        FileNotFoundError: it is not there.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise CheckpointError(f"{path} is empty (0 bytes)")
    _refuse_text(path, head)
    # A safetensors file starts with the length of its JSON header, which the format limits to 100 MB.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= 100_000_000:
        return _read_safetensors(path)
    return _read_torch(path, head)


def read_folder(folder: Path) -> dict[str, Any]:
    """The weights in a folder that transformers or timm saved, in one file or in shards.

    Raises:
        CheckpointError: there are none, a shard is missing, or a file is damaged.
    """
    path = folder / pick_weight_file([path.name for path in folder.iterdir()], str(folder))
    return _read_shards(path) if path.name.endswith(".index.json") else read_file(path)


def pick_weight_file(names: Iterable[str], where: str) -> str:
    """The file among `names` that holds the weights: under a usual name, or else the only one that could.

    Raises `CheckpointError`, which names the folder or repository `where`, if there is none or several.
    """
    names = list(names)
    for usual in _USUAL_NAMES:
        if usual in names:
            return usual
    candidates = sorted(name for name in names if Path(name).suffix in WEIGHT_SUFFIXES)
    if len(candidates) == 1:
        return candidates[0]
    found = f"several weight files, name one of them: {', '.join(candidates)}" if candidates else "no weight file"
    raise CheckpointError(f"{where} has {found}")


def shard_names(index: Path) -> list[str]:
    """Names of the files that a `*.index.json` divides a state dict into."""
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is not an index of weight files: {error!r}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index} names {name!r}, which is not a file beside it")
    return sorted(names)


def _read_shards(index: Path) -> dict[str, Any]:
    state_dict = {}
    for name in shard_names(index):
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index.parent} lacks {name}, which {index.name} lists")
        shard = read_file(index.parent / name)
        if not isinstance(shard, dict):
            raise CheckpointError(f"{index.parent / name} holds a {type(shard).__name__}, not a state dict")
        state_dict.update(shard)
    return state_dict


def _refuse_text(path: Path, head: bytes) -> None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise CheckpointError(f"{path} is a web page (HTML), not weights: its download went wrong; download it again")
    if text.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a Git LFS pointer, not weights: fetch the file itself with `git lfs pull`")


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is a cut-off or damaged safetensors file: {error}") from error


@contextmanager
def _stand_ins_allowed() -> Iterator[None]:
    """Let `torch.load` take these stand-ins, also where the real classes are allowed (as our plugin does)."""
    allowed = torch.serialization.get_safe_globals()
    taken = {_allowed_name(entry) for entry in _BESIDE_WEIGHTS}
    torch.serialization.clear_safe_globals()
    try:
        others = [entry for entry in allowed if _allowed_name(entry) not in taken]
        torch.serialization.add_safe_globals([*others, *_BESIDE_WEIGHTS])
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(allowed)


def _allowed_name(entry: Any) -> str:
    return entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}"


def _read_torch(path: Path, head: bytes) -> Any:
    zipped = head.startswith(b"PK")
    try:
        with _stand_ins_allowed():
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # torch has no error of its own for damaged files: whatever it meets comes out.
        if "TorchScript" in str(error):
            raise CheckpointError(f"{path} is a TorchScript program, not weights; save its state dict alone") from error
        if isinstance(error, pickle.UnpicklingError) and (zipped or head.startswith(_PICKLE_START)):
            raise CheckpointError(_explain_refusal(path, error)) from error
        if zipped:
            reason = str(error).splitlines()[-1] if str(error) else repr(error)
            raise CheckpointError(f"{path} is a cut-off or damaged PyTorch file: {reason}") from error
        raise CheckpointError(f"{path} is not a weight file, or a damaged one; it starts with {head[:16]!r}") from error


def _explain_refusal(path: Path, error: pickle.UnpicklingError) -> str:
    """Why a pickle was refused, and the way out."""
    asked = re.search(r"GLOBAL (\S+)", str(error))
    reason = f" (it asks for {asked[1]})" if asked else ""
    return (
        f"{path} is a pickle that needs more than tensors, and could run code when it is loaded; it was refused"
        f"{reason}. If you trust its origin, convert it on a machine where nothing is at risk: load it there with "
        "the software that wrote it and save its state dict alone, as safetensors or with torch.save"
    )
