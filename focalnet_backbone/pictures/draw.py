"""Gates, modulators and depth-wise kernels as pictures, as the paper draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from focalnet_backbone.pictures.modulation import BlockKernels, ModulationView
from focalnet_backbone.pictures.receptive_field import MeanField

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_OVERLAY_OPACITY = 0.65


def draw_gates(image: Tensor, views: Sequence[ModulationView], *, index: int = 0, overlay: bool = False) -> Figure:
    """Draw the gating maps: a row for each block, a column for each focal level and the global context.

    The maps of a row share their colours, white being a gate of zero.

    Args:
        image: the photo as the network saw it, `(3, H, W)`, uint8 or floats in 0 to 1.
        views: what `watch_modulation` saw in it.
        index: which image of the batch it is.
        overlay: whether to lay the maps over the photo.
    """
    levels = max(view.gates.shape[1] for view in views) - 1
    figure, panels = _make_grid(image, len(views), levels + 2)
    for view, row in zip(views, panels, strict=True):
        gates = view.gates[index]
        _show_photo(row[0], image)
        row[0].set_title(_name(view), fontsize=9)
        limit = _high(gates.abs())
        names = [*(f"focal level {level}" for level in range(1, len(gates))), "global context"]
        # The global context stands in the last column, also for a stage of fewer levels than another.
        columns = [*row[1 : len(gates)], row[-1]]
        for panel, name, gate in zip(columns, names, gates, strict=True):
            drawn = _show_map(panel, image, gate, view.stride, overlay, cmap="RdBu_r", vmin=-limit, vmax=limit)
            panel.set_title(f"gate of {name}", fontsize=9)
        _add_colour_bar(figure, drawn, list(row))
    return figure


def draw_modulators(image: Tensor, views: Sequence[ModulationView], *, index: int = 0, overlay: bool = False) -> Figure:
    """Draw the modulator's magnitude over the image: the photo, and a panel with its colour bar for each block.

    The arguments are those of `draw_gates`.
    """
    figure, ((first, *panels),) = _make_grid(image, 1, 1 + len(views))
    _show_photo(first, image)
    first.set_title(f"image, {image.shape[2]}x{image.shape[1]} px", fontsize=9)
    for panel, view in zip(panels, views, strict=True):
        magnitude = view.magnitude[index]
        limits = {"vmin": -_high(-magnitude), "vmax": _high(magnitude)}
        drawn = _show_map(panel, image, magnitude, view.stride, overlay, cmap="viridis", **limits)
        panel.set_title(f"modulator, {_name(view)}", fontsize=9)
        _add_colour_bar(figure, drawn, panel)
    return figure


def draw_kernels(kernels: Sequence[BlockKernels], *, channels: int = 36) -> Figure:
    """Draw depth-wise kernels: a row for each block, a column with its colour bar for each focal level.

    Args:
        kernels: what `read_kernels` gives.
        channels: how many kernels of each level to draw; the strongest, by their norm.
    """
    from matplotlib.figure import Figure

    columns = max(len(block.levels) for block in kernels)
    figure = Figure(figsize=(3 * columns, 2.9 * len(kernels)), layout="constrained")
    panels = figure.subplots(len(kernels), columns, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    for block, row in zip(kernels, panels, strict=True):
        for level, (panel, weights) in enumerate(zip(row, block.levels, strict=False), start=1):
            size = weights.shape[-1]
            mosaic = _tile(weights, channels)
            limit = float(mosaic.nan_to_num().abs().max()) or 1.0
            drawn = panel.imshow(mosaic.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
            panel.set_title(f"stage {block.stage}, block {block.block}, level {level}: {size}x{size}", fontsize=9)
            _add_colour_bar(figure, drawn, panel)
    return figure


def draw_receptive_fields(fields: Mapping[str, MeanField], *, columns: int = 4) -> Figure:
    """Draw effective receptive fields side by side, each relative to its largest value, in steps of powers of ten.

    Squares hold 50 % (dashed) and 95 % of the gradient.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    columns = min(columns, len(fields))
    height, width = next(iter(fields.values())).values.shape
    blank = torch.zeros(3, height, width, dtype=torch.uint8)
    figure, panels = _make_grid(blank, math.ceil(len(fields) / columns), columns)
    flat = [panel for row in panels for panel in row]
    for panel, (name, field) in zip(flat, fields.items(), strict=False):
        values = (field.values / field.values.max()).clamp(min=1e-4)
        drawn = panel.imshow(values.numpy(), extent=(0, width, height, 0), cmap="inferno", norm=LogNorm(1e-4, 1))
        sides = {share: field.spread(share) for share in (0.5, 0.95)}
        for share, side in sides.items():
            corner = (field.center[1] - side / 2, field.center[0] - side / 2)
            style = "--" if share == 0.5 else "-"
            panel.add_patch(
                Rectangle(corner, side, side, fill=False, edgecolor="white", linestyle=style, linewidth=0.8)
            )
        panel.set(xlim=(0, width), ylim=(height, 0))
        panel.set_title(f"{name}\n50 % in {sides[0.5]} px, 95 % in {sides[0.95]} px", fontsize=8)
    _add_colour_bar(figure, drawn, flat)
    return figure


def _name(view: ModulationView) -> str:
    return f"stage {view.stage}, block {view.block}"


def _high(values: Tensor) -> float:
    """The end of a colour scale: all but a few outliers lie below."""
    # As many values as a large photo has are more than torch's quantile takes.
    flat = values.flatten().sort().values
    return float(flat[int(0.995 * (len(flat) - 1))])


def _make_grid(image: Tensor, rows: int, columns: int) -> tuple[Figure, list[list[Axes]]]:
    """A figure of panels without axes, in the photo's proportions."""
    from matplotlib.figure import Figure

    # matplotlib refuses pictures of more than 2**16 pixels, so very tall photos get narrow panels.
    height = 2.6 * min(image.shape[1] / image.shape[2], 5) + 0.3
    figure = Figure(figsize=(2.6 * columns + 0.6, height * rows + 0.1), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    return figure, panels.tolist()


def _show_photo(panel: Axes, image: Tensor) -> None:
    panel.imshow(image.permute(1, 2, 0).cpu().numpy())


def _show_map(panel: Axes, image: Tensor, values: Tensor, stride: int, overlay: bool, **colours: object) -> AxesImage:
    """Draw a map `(H, W)` where it belongs on the photo; `overlay` smooths it and lets the photo show through."""
    height, width = image.shape[1:]
    rows, cols = values.shape
    look = {"interpolation": "nearest"}
    if overlay:
        panel.imshow(TF.rgb_to_grayscale(image)[0].cpu().numpy(), cmap="gray", extent=(0, width, height, 0))
        look = {"interpolation": "bilinear", "alpha": _OVERLAY_OPACITY}
    # In the photo's coordinates: the last row and column may reach beyond it.
    drawn = panel.imshow(values.numpy(), extent=(0, cols * stride, rows * stride, 0), **look, **colours)
    panel.set(xlim=(0, width), ylim=(height, 0))
    return drawn


def _add_colour_bar(figure: Figure, drawn: AxesImage, panels: Axes | list[Axes]) -> None:
    figure.colorbar(drawn, ax=panels, shrink=0.9, pad=0.01).ax.tick_params(labelsize=8)


def _tile(weights: Tensor, channels: int) -> Tensor:
    """The strongest of the kernels `(C, k, k)` as a square mosaic with gaps of NaN between them."""
    order = weights.flatten(1).norm(dim=1).argsort(descending=True, stable=True)
    chosen = weights[order[:channels]]
    side = math.ceil(math.sqrt(len(chosen)))
    blank = chosen.new_full((side * side - len(chosen), *chosen.shape[1:]), float("nan"))
    tiles = F.pad(torch.cat([chosen, blank]), (0, 1, 0, 1), value=float("nan"))
    k = tiles.shape[-1]
    return tiles.view(side, side, k, k).permute(0, 2, 1, 3).reshape(side * k, side * k)[:-1, :-1]
