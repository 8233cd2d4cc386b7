"""What the test pipeline of a config and the preprocessor of its model do to a photo."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config
from torch import nn

from focalnet_backbone.features.preparation import Preparation
from focalnet_backbone.openmmlab.data import leaf_datasets

_HARMLESS = ("LoadImageFromFile", "LoadAnnotations", "LoadPanopticAnnotations", "PackSegInputs", "PackDetInputs")
"""Transforms of a test pipeline that a file can do without."""


def read_normalising(model: nn.Module) -> dict[str, Any]:
    """The mean and deviation of the preprocessor, in the order of its channels, and whether blue is the first.

    Of a preprocessor that does not normalise, only the latter.
    """
    preprocessor = model.data_preprocessor
    swaps = getattr(preprocessor, "channel_conversion", getattr(preprocessor, "_channel_conversion", False))
    names = ("mean", "std") if hasattr(preprocessor, "mean") else ()
    return {"bgr": not swaps, **{name: tuple(getattr(preprocessor, name).flatten().tolist()) for name in names}}


def read_preparation(cfg: Config, model: nn.Module) -> Preparation:
    """The test pipeline's resizing and the preprocessor's normalising.

    Raises `ValueError` if a file cannot hold one of them.
    """
    normalising = read_normalising(model)
    if len(normalising.get("mean", ())) != 3:
        raise ValueError("a preprocessor that does not normalise three channels cannot be exported with photos")
    return Preparation(**normalising, fit=_read_resize(next(leaf_datasets(cfg.test_dataloader.dataset))["pipeline"]))


def read_padding(preprocessor: nn.Module) -> int:
    """The multiple to which an input is padded, on the right and bottom, with zeros.

    Raises `ValueError` if it is padded to a size or with other values.
    """
    config = getattr(preprocessor, "test_cfg", None) or {}
    if set(config) - {"size_divisor"}:
        raise ValueError(
            "a preprocessor that pads to a size in testing (data_preprocessor.test_cfg) cannot be exported"
        )
    if getattr(preprocessor, "pad_value", getattr(preprocessor, "pad_val", 0)) != 0:
        raise ValueError("a preprocessor that pads with other values than 0 cannot be exported")
    return config.get("size_divisor", getattr(preprocessor, "pad_size_divisor", 1))


def _read_resize(pipeline: list[dict]) -> tuple[int, int] | None:
    """The long and the short side within which a photo is resized; None if it is left as it is."""
    fit = None
    for transform in pipeline:
        kind = transform["type"].rpartition(".")[2]
        if transform.get("color_type", "color") != "color":
            raise ValueError(f"a test pipeline that reads photos as {transform['color_type']} cannot be exported")
        if kind in _HARMLESS:
            continue
        if kind != "Resize":
            raise ValueError(f"the test pipeline's {kind} cannot be exported; --tensor leaves the pipeline out")
        plain = transform.get("backend", "cv2") == "cv2" and transform.get("interpolation", "bilinear") == "bilinear"
        if not transform.get("keep_ratio") or not transform.get("scale") or not plain or fit:
            raise ValueError("only one bilinear Resize by scale with keep_ratio=True can be exported")
        scale = transform["scale"]
        fit = (max(scale), min(scale))
    return fit
