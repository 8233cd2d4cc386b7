"""What focal modulation does in a network: its gates, modulators and depth-wise kernels, read off a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from focalnet_backbone.network.backbone import FocalNetTrunk
from focalnet_backbone.network.blocks import FocalNetBlock


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
        features: `(N, C, H, W)`, what the block returns.
    """

    stage: int
    block: int
    stride: int
    gates: Tensor
    modulator: Tensor
    features: Tensor

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
        ValueError: there is no such stage or block, the model does not build that stage, or the images have a shape
            that it does not take.
    """
    trunk = _find_trunk(model)
    chosen = stages or range(1, len(trunk.layers) + 1)
    return _watch(trunk, pixel_values, [(stage, _block_numbers(trunk, stage, block)[-1]) for stage in chosen])


def watch_blocks(model: nn.Module, pixel_values: Tensor) -> list[ModulationView]:
    """`watch_modulation` of every block of the model, in its order."""
    trunk = _find_trunk(model)
    stages = range(1, len(trunk.layers) + 1)
    return _watch(trunk, pixel_values, [(s, number) for s in stages for number in _block_numbers(trunk, s, None)])


def _watch(trunk: FocalNetTrunk, pixel_values: Tensor, places: list[tuple[int, int]]) -> list[ModulationView]:
    """Run the network on images, and note what happens in blocks, each a stage and a number."""
    seen: dict[tuple[int, int], dict[str, Tensor]] = {place: {} for place in places}
    with ExitStack() as stack:
        for place in places:
            block = _block(trunk, *place)
            for part, module in {"f": block.modulation.f, "h": block.modulation.h, "block": block}.items():
                handle = module.register_forward_hook(partial(_note_output, seen[place], part))
                stack.callback(handle.remove)
        stack.enter_context(_eval_mode(trunk))
        stack.enter_context(torch.no_grad())
        trunk(pixel_values)

    views = []
    for (stage, number), outputs in seen.items():
        # The projection f gives query, context and gates, in this order: (N, H, W, 2 * C + L + 1).
        dim = _block(trunk, stage, number).modulation.dim
        gates, features = (outputs[part].permute(0, 3, 1, 2) for part in ("f", "block"))
        stride = trunk.config.stage_strides[stage - 1]
        maps = (gates[:, 2 * dim :], outputs["h"], features)
        views.append(ModulationView(stage, number, stride, *map(_to_cpu, maps)))
    return views


def read_kernels(model: nn.Module, stage: int, block: int | None = None) -> list[BlockKernels]:
    """The depth-wise kernels of a stage, block by block.

    Args:
        model: any of the FocalNets, or a model that holds one.
        stage: which stage, from 1.
        block: which of its blocks, from 1; all by default.

    Raises:
        TypeError: the model holds no FocalNet.
        ValueError: there is no such stage or block, or the model does not build that stage.
    """
    trunk = _find_trunk(model)
    kernels = []
    for number in _block_numbers(trunk, stage, block):
        levels = _block(trunk, stage, number).modulation.focal_layers
        kernels.append(BlockKernels(stage, number, tuple(_to_cpu(level[0].weight[:, 0]) for level in levels)))
    return kernels


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
    if stage > len(trunk.layers):
        raise ValueError(f"stage {stage} is not built in a backbone that returns {trunk.out_features}")
    numbers = range(1, depths[stage - 1] + 1)
    if block is not None and block not in numbers:
        raise ValueError(f"block must be from 1 to {len(numbers)} in stage {stage}, got {block}")
    return list(numbers) if block is None else [block]


def _block(trunk: FocalNetTrunk, stage: int, number: int) -> FocalNetBlock:
    return trunk.layers[stage - 1].blocks[number - 1]


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
