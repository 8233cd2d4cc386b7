"""Models from and to folders, in the layout of transformers: `config.json` beside `model.safetensors`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from focalnet_backbone.checkpoints import export_state_dict, load_checkpoint
from focalnet_backbone.checkpoints.download import hub_file, placed_folder
from focalnet_backbone.config import CONFIG_FILE, FocalNetConfig, closest
from focalnet_backbone.models.labels import imagenet_labels
from focalnet_backbone.variants import VARIANTS, Variant

if TYPE_CHECKING:
    from focalnet_backbone.models.model import AnyModel, FocalNetModel

WEIGHTS_FILE = "model.safetensors"

logger = logging.getLogger(__name__)


def find_variant(source: str | Path) -> Variant | None:
    """The variant of that name, or whose weights are published at that hub id with no config of transformers."""
    if source in VARIANTS:
        return VARIANTS[source]
    for variant in VARIANTS.values():
        hub_ids = [address.split(":")[0] for kind, address in variant.weights.items() if kind != "transformers"]
        if source in hub_ids:
            return variant
    return None


def find_file(source: str | Path, name: str) -> Path | None:
    """The file of that name in a folder or a hub repository; None if the folder lacks it.

    Raises:
        FileNotFoundError: the source is no folder, and no hub id either.
        CheckpointError: the hub has no such file, or cannot be reached.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if isinstance(source, Path) or folder.exists() or source.count("/") != 1:
            raise FileNotFoundError(f"{source} is no folder, variant or hub id.{closest(str(source), VARIANTS)}")
        folder = placed_folder(source)
        if not folder.is_dir():
            return hub_file(source, name)
    return folder / name if (folder / name).is_file() else None


def read_config(source: str | Path) -> FocalNetConfig:
    """The architecture of a variant, a folder or a hub id.

    Raises:
        FileNotFoundError: the source is none of these, or has no `config.json`.
        ValueError: the `config.json` is not that of a FocalNet.
        CheckpointError: the hub has no such repository, or cannot be reached.
    """
    variant = find_variant(source)
    if variant is not None:
        labels = imagenet_labels(variant.pretrained_on)
        return variant.config(id2label=labels) if labels else variant.config()
    path = find_file(source, CONFIG_FILE)
    if path is None:
        raise FileNotFoundError(f"{source} has no {CONFIG_FILE}")
    return FocalNetConfig.from_pretrained(path)


def load_pretrained(
    cls: type[AnyModel], source: str | Path, config: FocalNetConfig | None, strict: bool, overrides: dict[str, Any]
) -> AnyModel:
    """Body of `FocalNetModel.from_pretrained`."""
    config = read_config(source) if config is None else config
    model = cls(config.replace(**overrides) if overrides else config)
    load_checkpoint(model, source, strict=strict)
    return model.eval()


def save_pretrained(model: FocalNetModel, folder: str | Path) -> Path:
    """Body of `FocalNetModel.save_pretrained`."""
    config = model.config.replace()
    ours = next(cls.__name__ for cls in type(model).__mro__ if cls.__module__.startswith(__package__))
    config.extra |= {"architectures": [ours], "dtype": str(model.norm.weight.dtype).removeprefix("torch.")}
    if config.use_conv_embed and config.conv_embed_stem_padding != 2:
        logger.warning(
            "transformers pads the convolutional stem by 2, not by conv_embed_stem_padding=%d: there, %s will give "
            "other outputs",
            config.conv_embed_stem_padding,
            folder,
        )
    text = config.to_json_string()
    tensors = {name: x.contiguous() for name, x in export_state_dict(model.state_dict(), "transformers").items()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / WEIGHTS_FILE, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    replace_file(folder / CONFIG_FILE, lambda path: path.write_text(text, encoding="utf-8"))
    return folder


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` make the file under another name, and rename it when it is whole.

    Whatever goes wrong, `path` is either as it was or as it should be, and nothing else is left behind.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
