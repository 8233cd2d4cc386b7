"""Maps of a backbone that no neck or head of a model reads."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from mmengine.logging import print_log
from torch import nn

from focalnet_backbone.network.backbone import FocalNet


def freeze_unread(model: nn.Module) -> None:
    """Take out of training what a model's FocalNet has for maps that nothing reads, and say so in one line."""
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, FocalNet):
        return
    names = backbone.out_features
    read = [names[index] for index in _read(model, len(names))]
    frozen = backbone.freeze_unread(read)
    if frozen:
        print_log(
            f"no neck or head reads {', '.join(frozen)} of the backbone (of {', '.join(names)}): what is for them "
            "alone is not trained; out_indices can leave them out",
            "current",
            logging.WARNING,
        )


def _read(model: nn.Module, count: int) -> Iterable[int]:
    """Positions of the maps that are read, of `count`. All, where it cannot be told."""
    neck = getattr(model, "neck", None)
    if neck is not None:
        first = neck[0] if isinstance(neck, nn.Sequential) else neck
        if hasattr(first, "lateral_convs"):  # Of mmdetection's and mmsegmentation's feature pyramids.
            return range(getattr(first, "start_level", 0), getattr(first, "backbone_end_level", count))
        # mmpretrain's necks take each map for itself.
        return [count - 1] if type(first).__name__ == "GlobalAveragePooling" else range(count)
    read: set[int] = set()
    for head in (*_modules(model, "decode_head"), *_modules(model, "auxiliary_head")):
        index = getattr(head, "in_index", range(count))
        read |= {i % count for i in ([index] if isinstance(index, int) else index)}
    return sorted(read) or range(count)


def _modules(model: nn.Module, name: str) -> list[Any]:
    part = getattr(model, name, None)
    return list(part) if isinstance(part, nn.ModuleList) else [part] if part is not None else []
