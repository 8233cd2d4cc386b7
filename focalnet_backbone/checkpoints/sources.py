"""Where weights come from: files, transformers folders, the Hugging Face hub, web addresses, variant names."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from focalnet_backbone.checkpoints.download import download, hub_file, placed_folder
from focalnet_backbone.checkpoints.errors import CheckpointError
from focalnet_backbone.checkpoints.files import WEIGHT_SUFFIXES, read_file, read_folder
from focalnet_backbone.checkpoints.published import DETECTORS
from focalnet_backbone.network.config import FocalNetConfig
from focalnet_backbone.network.variants import VARIANTS, Variant, find_variant
from focalnet_backbone.system.inputs import read_json
from focalnet_backbone.system.spelling import closest

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w./-]+)?")


@dataclass(frozen=True)
class Source:
    """An opened source.

    Attributes:
        name: what to call it in messages.
        checkpoint: what it held, as read.
        config: architecture that the source states, or that is published for it.
    """

    name: str
    checkpoint: Any
    config: FocalNetConfig | None = None


def open_source(source: str | Path | Mapping[str, Any]) -> Source:
    """Open whatever `load_checkpoint` takes.

    Raises:
        CheckpointError: it cannot be had or read.
        FileNotFoundError: it looks like a path, and nothing is there; or it is empty.
        TypeError: it is neither a string, a path nor a mapping.
    """
    if isinstance(source, Mapping):
        return Source("state dict", source)
    if not isinstance(source, str | Path):
        raise TypeError(f"source must be a path, name, address or state dict, got {type(source).__name__}")
    if source == "":
        raise FileNotFoundError("source is an empty string, which names no checkpoint")
    # Before the paths, as results are often kept in a folder of the variant's name (`./name` is that folder).
    if source in VARIANTS:
        return _open_variant(VARIANTS[source])
    if source in DETECTORS:
        address = DETECTORS[source].address
        return Source(f"{source} from {address}", read_file(download(address)))
    path = Path(os.path.expanduser(source))
    if path.is_dir():
        return _open_folder(path)
    if path.exists():
        return Source(str(path), read_file(path))
    name = str(source)
    if isinstance(source, Path):
        raise FileNotFoundError(f"no checkpoint at {path}")
    if re.match(r"https?://", name):
        return Source(name, read_file(download(name)), _published_config(name))
    if _HUB_ID.fullmatch(name) and (":" in name or path.suffix not in WEIGHT_SUFFIXES):
        return _open_hub(name)
    raise FileNotFoundError(
        f"no checkpoint at {name}, nor is it a published model's name, a hub id or an https:// address."
        f"{closest(name, (*VARIANTS, *DETECTORS))}"
    )


def _open_folder(folder: Path) -> Source:
    return Source(str(folder), read_folder(folder), _transformers_config(folder))


def _open_hub(name: str) -> Source:
    """Open `repository` or `repository:file` from the Hugging Face hub."""
    repository, _, file = name.partition(":")
    placed = placed_folder(repository)
    if (placed / file).exists():
        folder, checkpoint = placed, read_file(placed / file) if file else read_folder(placed)
    else:
        path = hub_file(repository, file)
        folder = path.parent
        checkpoint = read_folder(folder) if path.name.endswith(".index.json") else read_file(path)
    return Source(name, checkpoint, _transformers_config(folder) or _published_config(name))


def _open_variant(variant: Variant) -> Source:
    """Open a variant's best source that can be had."""
    if not variant.weights:
        raise CheckpointError(f"there are no published weights of {variant.name}")
    failures = []
    for address in variant.weights.values():
        try:
            source = Source(address, read_file(download(address))) if "://" in address else _open_hub(address)
        except CheckpointError as error:
            failures.append(str(error))
        else:
            if failures:
                logger.warning("%s: taking %s, as %s", variant.name, address, "; ".join(failures))
            return Source(
                f"{variant.name} from {address}", source.checkpoint, FocalNetConfig.from_variant(variant.name)
            )
    raise CheckpointError(f"no source of {variant.name} can be had: {'; '.join(failures)}")


def _published_config(address: str) -> FocalNetConfig | None:
    variant = find_variant(address)
    return variant and FocalNetConfig.from_variant(variant.name)


def _transformers_config(folder: Path) -> FocalNetConfig | None:
    """The `config.json` in a folder if it is transformers' (timm and training scripts write such files too)."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        values = read_json(path)
        if isinstance(values, dict) and "model_type" not in values:
            return None
        return FocalNetConfig.from_pretrained(path)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is not the config of a FocalNet: {error}") from error
