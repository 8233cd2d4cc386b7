"""What the network sees: gates, modulators and depth-wise kernels of focal modulation, as the paper draws them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as TF

from focalnet_backbone.backbone import FocalNetTrunk
from focalnet_backbone.modulation import FocalModulation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_OVERLAY_OPACITY = 0.65


@dataclass(frozen=True)
class ModulationView:
    """What one block's focal modulation did with a batch of images; tensors on the CPU in float32 or float64.

    Attributes:
        stage: stage of the block, from 1.
        block: its place in the stage, from 1.
        stride: pixels of the image from one position of the maps to the next.
        gates: `(N, L + 1, H, W)`, the weights of the L focal levels and, last, of the global context at each position
            (G in equation 5 of the paper).
        modulator: `(N, C, H, W)`, what the query is multiplied by (equation 6).
    """

    stage: int
    block: int
    stride: int
    gates: Tensor
    modulator: Tensor

    @property
    def magnitude(self) -> Tensor:
        """The modulator's Euclidean norm over its channels, `(N, H, W)`."""
        return self.modulator.norm(dim=1)


@dataclass(frozen=True)
class BlockKernels:
    """The depth-wise kernels of one block.

    Attributes:
        stage: stage of the block, from 1.
        block: its place in the stage, from 1.
        levels: `(C, k, k)` for each focal level, finest first, on the CPU in float32 or float64.
    """

    stage: int
    block: int
    levels: tuple[Tensor, ...]


def watch_modulation(
    model: nn.Module, pixel_values: Tensor, stages: Sequence[int] | None = None, block: int | None = None
) -> list[ModulationView]:
    """Run a model on images, and see what focal modulation does in one block of each stage.

    The model is left as it was: in eval mode only meanwhile, and without hooks, whatever happens.

    Args:
        model: any of the FocalNets, or a model that holds one, such as a detector; of that, the FocalNet is run.
        pixel_values: normalised images `(N, C, H, W)`, of the model's type and on its device.
        stages: stages to look at, from 1; all by default.
        block: which block of each of them, from 1; the last by default.

    Raises:
        TypeError: the model holds no FocalNet, or the images are not of its type.
        ValueError: there is no such stage or block, the model does not compute that stage, or the images have a shape
            that it does not take.
    """
    trunk = _find_trunk(model)
    places = [(stage, _block_numbers(trunk, stage, block)[-1]) for stage in stages or range(1, len(trunk.layers) + 1)]
    seen: dict[tuple[int, int], dict[str, Tensor]] = {place: {} for place in places}
    with ExitStack() as stack:
        for place in places:
            for part in ("f", "h"):
                module = getattr(_modulation(trunk, *place), part)
                handle = module.register_forward_hook(partial(_note_output, seen[place], part))
                stack.callback(handle.remove)
        stack.enter_context(_eval_mode(trunk))
        stack.enter_context(torch.no_grad())
        trunk(pixel_values)

    views = []
    for (stage, number), outputs in seen.items():
        if not outputs:
            raise ValueError(f"stage {stage} is not computed by a backbone that returns {trunk.out_features}")
        # The projection f gives query, context and gates, in this order: (N, H, W, 2 * C + L + 1).
        gates = outputs["f"][..., 2 * _modulation(trunk, stage, number).dim :].permute(0, 3, 1, 2)
        stride = trunk.config.stage_strides[stage - 1]
        views.append(ModulationView(stage, number, stride, _to_cpu(gates), _to_cpu(outputs["h"])))
    return views


def read_kernels(model: nn.Module, stage: int, block: int | None = None) -> list[BlockKernels]:
    """The depth-wise kernels of a stage, block by block.

    Args:
        model: any of the FocalNets, or a model that holds one.
        stage: which stage, from 1.
        block: which of its blocks, from 1; all by default.

    Raises:
        TypeError: the model holds no FocalNet.
        ValueError: there is no such stage or block.
    """
    trunk = _find_trunk(model)
    kernels = []
    for number in _block_numbers(trunk, stage, block):
        levels = _modulation(trunk, stage, number).focal_layers
        kernels.append(BlockKernels(stage, number, tuple(_to_cpu(level[0].weight[:, 0]) for level in levels)))
    return kernels


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


def _find_trunk(model: nn.Module) -> FocalNetTrunk:
    trunks = [module for module in model.modules() if isinstance(module, FocalNetTrunk)]
    if not trunks:
        raise TypeError(f"model holds no FocalNet: {type(model).__name__}")
    if len(trunks) > 1:
        raise ValueError(f"model holds {len(trunks)} FocalNets; give one of them")
    return trunks[0]


def _block_numbers(trunk: FocalNetTrunk, stage: int, block: int | None) -> list[int]:
    """The chosen block of a stage, or all; checked."""
    depths = trunk.config.depths
    if stage not in range(1, len(depths) + 1):
        raise ValueError(f"stage must be from 1 to {len(depths)}, got {stage}")
    numbers = range(1, depths[stage - 1] + 1)
    if block is not None and block not in numbers:
        raise ValueError(f"block must be from 1 to {len(numbers)} in stage {stage}, got {block}")
    return list(numbers) if block is None else [block]


def _modulation(trunk: FocalNetTrunk, stage: int, block: int) -> FocalModulation:
    return trunk.layers[stage - 1].blocks[block - 1].modulation


def _note_output(notes: dict[str, Tensor], name: str, module: nn.Module, args: tuple, output: Tensor) -> None:
    """A forward hook."""
    notes[name] = output


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode, and afterwards each module in the mode that it was in (a frozen one, say, in eval mode)."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _to_cpu(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu()
    return tensor if tensor.dtype == torch.float64 else tensor.float()


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
