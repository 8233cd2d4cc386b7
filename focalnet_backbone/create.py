"""A network and its weights: a published model by its name, or the backbone that a checkpoint is from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from focalnet_backbone.checkpoints.architecture import infer_config
from focalnet_backbone.checkpoints.errors import CheckpointError
from focalnet_backbone.checkpoints.formats import recognise
from focalnet_backbone.checkpoints.load import load_checkpoint
from focalnet_backbone.checkpoints.sources import open_source
from focalnet_backbone.network.backbone import FocalNet
from focalnet_backbone.network.config import FocalNetConfig
from focalnet_backbone.network.variants import get_variant

DEFAULT_VARIANT = "focalnet_tiny_lrf"
"""What a command line that names neither variant nor weights gets."""


def create_backbone(name: str, *, weights: Any = None, **overrides: Any) -> FocalNet:
    """Build a published model as a backbone.

    Args:
        name: one of `list_variants()`.
        weights: None for random weights, "pretrained" for the best published ones, or whatever
            `load_checkpoint` takes: a file, a folder, a hub id, an address, a state dict.
        **overrides: knobs of `FocalNet` (`out_features`, `out_indices`, `frozen_stages`, `use_checkpoint`) and of
            `FocalNetConfig` (for example `focal_windows=[9, 9, 9, 9]`; smaller pretrained kernels are enlarged).

    Raises:
        KeyError: there is no such variant.
        CheckpointError: the weights cannot be had or do not fit.
    """
    backbone = FocalNet(FocalNetConfig.from_variant(name), **overrides)
    if weights is not None:
        load_checkpoint(backbone, name if weights == "pretrained" else weights)
    return backbone


def build_backbone(
    source: str | Path | Mapping[str, Any],
    *,
    variant: str | None = None,
    out_features: Sequence[str] | None = None,
) -> FocalNet:
    """Build the backbone that a checkpoint is from, with its weights.

    Its sizes (widths, depths, focal levels, kernels, ...) are those of the tensors, as a detector's kernels are larger
    than those of the published model that it began with, and a model of your own is like none of them.

    Args:
        source: whatever `load_checkpoint` takes, such as the checkpoint of a whole detector or segmenter.
        variant: name of a published model of the same family, for what no shape shows, such as where the blocks
            normalise; by default what the source says of it, and else the published model with these shapes.
        out_features: names of the maps that it returns; all stages by default.

    Raises:
        CheckpointError: the source cannot be had or read, or its architecture cannot be told.
        FileNotFoundError: the source is a path where nothing is.
        KeyError: there is no such variant.
        ValueError: there is no such feature.
    """
    given = None if variant is None else FocalNetConfig.from_variant(variant)
    opened = open_source(source)
    try:
        config = infer_config(recognise(opened.checkpoint), given or opened.config)
    except CheckpointError as error:
        raise CheckpointError(f"{opened.name}: {error}") from error
    if config is None:
        raise CheckpointError(
            f"{opened.name}: no published model has these shapes; name one of the same family (--variant, variant=...)"
        )
    backbone = FocalNet(config, out_features=out_features or config.stage_names[1:])
    load_checkpoint(backbone, source)
    return backbone


def open_backbone(variant: str | None, weights: str | None, out_features: Sequence[str] | None = None) -> FocalNet:
    """The backbone that a command line's `--variant` and `--weights` ask for.

    Args:
        variant: name of a published model, or None: that which the weights are from, and without weights FocalNet-T.
        weights: None for random ones, "pretrained" for the variant's published ones, or a source for `build_backbone`.
        out_features: names of the maps that it returns; all stages by default.

    Raises what `build_backbone` raises, and `ValueError` for pretrained weights of no variant.
    """
    if weights is None:
        variant = variant or DEFAULT_VARIANT
        return create_backbone(
            variant, out_features=out_features or FocalNetConfig.from_variant(variant).stage_names[1:]
        )
    if weights == "pretrained":
        if variant is None:
            raise ValueError("pretrained weights (--weights pretrained) need a variant (--variant)")
        weights = get_variant(variant).name
    return build_backbone(weights, variant=variant, out_features=out_features)
