"""One page on which to look around in what a network makes of a photo."""

from __future__ import annotations

import base64
import io
import itertools
import json
import zlib
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from focalnet_backbone.features.images import normalize
from focalnet_backbone.features.pyramid import principal_components
from focalnet_backbone.network.backbone import FocalNetTrunk
from focalnet_backbone.pictures.modulation import ModulationView, watch_blocks
from focalnet_backbone.pictures.receptive_field import effective_receptive_field, kernel_reach
from focalnet_backbone.system.outputs import result_file

_FIELD_CELLS = 64
"""Cells, at most, along the longer side of a receptive field's map."""


def explore(
    model: FocalNetTrunk,
    image: Tensor,
    *,
    name: str,
    network: str,
    fields: int = 3,
    report: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """What a page shows of one photo and one network.

    Args:
        model: the network.
        image: the photo, uint8 `(3, H, W)`.
        name: what to call the photo.
        network: what to call the network.
        fields: effective receptive fields are computed at so many rows and columns of places in each stage.
        report: called with a line before each longer step.

    Returns:
        Numbers and texts as JSON has them. Every map is quantised to 8 bits; a feature vector with a scale of its own,
        which cosines do not feel.

    Raises:
        ValueError: the image is smaller than the network can look at, or a feature is not finite.
    """
    weight = model.patch_embed.proj.weight
    pixels = normalize(image[None].to(weight.device), weight.dtype)
    say = report or (lambda line: None)
    say("running the network")
    views = watch_blocks(model, pixels)
    stages = []
    for stage in sorted({view.stage for view in views}):
        blocks = [view for view in views if view.stage == stage]
        _, channels, rows, columns = blocks[0].features.shape
        say(f"stage {stage}: {fields * fields} receptive fields")
        stages.append(
            {
                "stage": stage,
                "stride": blocks[0].stride,
                "rows": rows,
                "columns": columns,
                "channels": channels,
                "blocks": [_describe_block(model, view) for view in blocks],
                "fields": _fields(model, pixels, blocks[-1], fields),
            }
        )
    _, height, width = image.shape
    return {
        "name": name,
        "network": network,
        "width": width,
        "height": height,
        "photo": _photo(image),
        "stages": stages,
    }


def write_page(scenes: Sequence[dict[str, Any]], path: str | Path) -> Path:
    """Write a page of what `explore` gave, one scene beside the other. Returns its path."""
    here = resources.files(__package__)
    parts = {name: (here / f"explore.{name}").read_text(encoding="utf-8") for name in ("html", "css", "js")}
    # In a script element, "<" could end it: names come from files.
    data = json.dumps(list(scenes), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    page = parts["html"].replace("/* STYLE */", parts["css"])
    page = page.replace("/* SCRIPT */", parts["js"]).replace("/* SCENES */", data)
    path = Path(path)
    with result_file(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return path


def _describe_block(model: FocalNetTrunk, view: ModulationView) -> dict[str, Any]:
    features, gates = view.features[0], view.gates[0]
    if not features.isfinite().all():
        raise ValueError(f"the features of stage {view.stage}, block {view.block} are not finite")
    limit = float(gates.abs().max()) or 1.0
    reach = kernel_reach(model, view.stage, view.block)
    norm, magnitude = features.norm(dim=0), view.magnitude[0]
    return {
        "block": view.block,
        "gates": {"low": -limit, "high": limit, "count": len(gates), "data": _pack(_quantise(gates, -limit, limit))},
        "modulator": _map(magnitude),
        "norm": _map(norm),
        "components": _pack(np.round(principal_components(features) * 255).astype(np.uint8)),
        "features": _pack(_directions(features)),
        "reach": {"before": reach.before, "after": reach.after},
    }


def _map(values: Tensor) -> dict[str, Any]:
    low, high = float(values.min()), float(values.max())
    return {"low": low, "high": high, "data": _pack(_quantise(values, low, high))}


def _fields(model: FocalNetTrunk, pixels: Tensor, view: ModulationView, count: int) -> dict[str, Any]:
    """Effective receptive fields of a stage's last block at `count` times `count` places, evenly spread."""
    rows, columns = view.features.shape[2:]
    middles = [[int((i + 0.5) * length / count) for i in range(count)] for length in (rows, columns)]
    places = sorted(set(itertools.product(*middles)))
    block = model.layers[view.stage - 1].blocks[view.block - 1]
    height, width = pixels.shape[2:]
    scale = max(1.0, max(height, width) / _FIELD_CELLS)
    size = (max(1, round(height / scale)), max(1, round(width / scale)))
    maps = []
    for field in effective_receptive_field(model, pixels, block, places):
        small = torch.nn.functional.adaptive_avg_pool2d(field[None], size)[0].sqrt()
        maps.append(_quantise(small, 0.0, float(small.max()) or 1.0))
    return {"rows": size[0], "columns": size[1], "places": places, "data": _pack(np.stack(maps))}


def _quantise(values: Tensor, low: float, high: float) -> np.ndarray:
    span = (high - low) or 1.0
    return ((values - low) / span * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def _directions(features: Tensor) -> np.ndarray:
    """Each position's feature vector as whole numbers from -127 to 127: int8 `(H, W, C)`."""
    vectors = features.permute(1, 2, 0)
    largest = vectors.abs().amax(-1, keepdim=True).clamp(min=1e-30)
    return (vectors / largest * 127).round().to(torch.int8).cpu().numpy()


def _pack(values: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values).tobytes(), 9)).decode("ascii")


def _photo(image: Tensor) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).cpu().numpy()).save(buffer, "JPEG", quality=90)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
