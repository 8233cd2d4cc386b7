"""Reading weight files without running anything that is in them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from focalnet_backbone.checkpoints.errors import CheckpointError
from focalnet_backbone.checkpoints.torch_files import read_torch
from focalnet_backbone.system.inputs import read_json

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".pkl", ".ckpt")
"""Endings of files that may hold weights."""
_LARGEST_INDEX = 64 << 20
"""Bytes; an index names each tensor of a model."""
# Names under which transformers and timm save weights, best first.
_USUAL_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def read_file(path: Path, *, real_classes: bool = False) -> Any:
    """What a `.safetensors`, `.pth`, `.pt` or `.bin` file holds, on the CPU. The content decides, not the name.

    Every file of weights comes in by this function, whatever program asks for it. Nothing in a file is run.

    Args:
        path: the file.
        real_classes: see `read_torch`.

    Raises:
        CheckpointError: the file is empty, cut off, no weight file, a pickle that needs more than tensors, does not
            have the checksums that it names, or asks for more memory than it has bytes.
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
    return read_torch(path, real_classes=real_classes)


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
        names = set(read_json(index, most=_LARGEST_INDEX)["weight_map"].values())
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
