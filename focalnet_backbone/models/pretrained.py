"""Models from and to folders, in the layout of transformers: `config.json` beside `model.safetensors`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, TypeVar

import torch

from focalnet_backbone.checkpoints import load_checkpoint
from focalnet_backbone.checkpoints.download import hub_file, placed_folder
from focalnet_backbone.checkpoints.save import save_transformers
from focalnet_backbone.models.labels import imagenet_labels
from focalnet_backbone.network.config import CONFIG_FILE, FocalNetConfig
from focalnet_backbone.network.variants import VARIANTS, find_variant
from focalnet_backbone.system.spelling import closest

logger = logging.getLogger(__name__)

AnyModel = TypeVar("AnyModel", bound="PretrainedMixin")


def find_file(source: str | Path, name: str) -> Path | None:
    """The file of that name in a folder or a hub repository; None if the folder lacks it.

    Raises:
        FileNotFoundError: the source is no folder, and no hub id either.
        CheckpointError: the hub has no such file, or cannot be reached.
        TypeError: the source is neither a string nor a path.
    """
    if not isinstance(source, str | Path):
        raise TypeError(f"expected a variant's name, a folder or a hub id, got {type(source).__name__}")
    folder = Path(os.path.expanduser(source))
    if folder.is_file():
        raise FileNotFoundError(f"{source} is a file, which has no {name} beside its weights; name the variant too")
    if not folder.is_dir():
        if isinstance(source, Path) or folder.exists() or source.count("/") != 1:
            raise FileNotFoundError(f"{source} is no folder, variant or hub id.{closest(str(source), VARIANTS)}")
        folder = placed_folder(source)
        if not folder.is_dir():
            return hub_file(source, name)
    return folder / name if (folder / name).is_file() else None


def read_config(source: str | Path) -> FocalNetConfig:
    """The architecture of a variant (given by its name or an address of its weights), a folder or a hub id.

    Raises:
        FileNotFoundError: the source is none of these, or has no `config.json`.
        ValueError: the `config.json` is not that of a FocalNet.
        CheckpointError: the hub has no such repository, or cannot be reached.
    """
    variant = find_variant(source)
    if variant is not None:
        labels = imagenet_labels(variant.pretrained_on)
        return FocalNetConfig.from_variant(variant.name, **({"id2label": labels} if labels else {}))
    path = find_file(source, CONFIG_FILE)
    if path is None:
        raise FileNotFoundError(f"{source} has no {CONFIG_FILE}")
    return FocalNetConfig.from_pretrained(path)


class PretrainedMixin:
    """`from_pretrained` and `save_pretrained` for models that have a `config` and take one first."""

    config: FocalNetConfig

    @property
    def device(self) -> torch.device:
        """Where the parameters are, and the inputs have to be."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the parameters."""
        return next(self.parameters()).dtype

    @classmethod
    def from_pretrained(
        cls: type[AnyModel],
        source: str | Path,
        *,
        config: FocalNetConfig | None = None,
        strict: bool = True,
        **overrides: Any,
    ) -> AnyModel:
        """Build the model of a checkpoint and load it; the model comes in eval mode.

        Args:
            source: a variant's name, a folder with `config.json` (such as `save_pretrained` writes), a hub id, or,
                with `config` given, any file or address that `load_checkpoint` takes.
            config: the architecture; by default that of the source.
            strict: False leaves what the source lacks, such as a head for other classes, as it is initialised.
            **overrides: knobs of the architecture to change.

        Raises:
            FileNotFoundError, ValueError: the source has no config.
            CheckpointError: the weights cannot be had or do not fit.
        """
        config = read_config(source) if config is None else config
        model = cls(config.replace(**overrides) if overrides else config)
        load_checkpoint(model, source, strict=strict)
        return model.eval()

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write `model.safetensors` and `config.json` as transformers' class of the same name reads them.

        Returns the folder, which is made if need be.
        """
        config = self.config.replace()
        if config.use_conv_embed and config.conv_embed_stem_padding != 2:
            logger.warning(
                "transformers pads the convolutional stem by 2, not by conv_embed_stem_padding=%d: there, %s will "
                "give other outputs",
                config.conv_embed_stem_padding,
                folder,
            )
        config.extra["dtype"] = str(self.dtype).removeprefix("torch.")
        save_transformers(Path(folder), self.state_dict(), config)
        return Path(folder)
