"""How far a network looks: the reach of its kernels, and where in the image an output's gradient falls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from focalnet_backbone.network.backbone import FocalNetTrunk
from focalnet_backbone.network.layers import PatchEmbed


@dataclass(frozen=True)
class Reach:
    """Pixels that a position sees through kernels alone, the global context left out, which sees the whole image.

    Position `r` of a map of that stride sees pixels `r * stride - before` to `r * stride + after`, of rows and of
    columns alike.
    """

    stride: int
    before: int
    after: int

    @property
    def size(self) -> int:
        """Side of the square in pixels."""
        return self.before + self.after + 1


def kernel_reach(trunk: FocalNetTrunk, stage: int, block: int) -> Reach:
    """What a position after a block, both counted from 1, sees through the stem's and the blocks' kernels."""
    low = high = 0
    for number in range(stage, 0, -1):
        blocks = trunk.layers[number - 1].blocks[: block if number == stage else None]
        radius = sum(layer[0].kernel_size[0] // 2 for b in blocks for layer in b.modulation.focal_layers)
        embed = trunk.patch_embed if number == 1 else trunk.layers[number - 2].downsample
        low, high = _through(embed, low - radius, high + radius)
    return Reach(trunk.config.stage_strides[stage - 1], -low, high)


def _through(embed: PatchEmbed, low: int, high: int) -> tuple[int, int]:
    stride, kernel, padding = (values[0] for values in (embed.proj.stride, embed.proj.kernel_size, embed.proj.padding))
    return low * stride - padding, high * stride - padding + kernel - 1


def effective_receptive_field(
    model: nn.Module, pixel_values: Tensor, module: nn.Module, places: Sequence[tuple[int, int]]
) -> Iterator[Tensor]:
    """Where in an image the output of a module at some places comes from (arXiv 1701.04128).

    Args:
        model: any model of images, run in eval mode without a change to it.
        pixel_values: one normalised image `(1, C, H, W)`.
        module: the part of it whose output `(1, H', W', C')` is asked about, such as a block of a FocalNet.
        places: rows and columns of that output.

    Yields:
        For each place, `(H, W)`: the magnitude over the image's channels of the gradient of the sum of the output's
        channels there, in float32 on the CPU.
    """
    outputs: list[Tensor] = []
    handle = module.register_forward_hook(lambda _, args, output: outputs.append(output))
    pixel_values = pixel_values.detach().requires_grad_()
    try:
        with torch.enable_grad(), _untrained(model):
            model(pixel_values)
    finally:
        handle.remove()
    for row, column in places:
        total = outputs[0][0, row, column].sum()
        (gradient,) = torch.autograd.grad(total, pixel_values, retain_graph=True)
        yield gradient[0].norm(dim=0).float().cpu()


@dataclass(frozen=True)
class MeanField:
    """An effective receptive field, averaged.

    Attributes:
        values: magnitude of the gradient at each pixel, `(H, W)`.
        center: row and column, in pixels, of the middle of the output's cell.
    """

    values: Tensor
    center: tuple[float, float]

    def spread(self, share: float) -> int:
        """Side in pixels of the smallest square around the centre that holds this share of the gradient."""
        height, width = self.values.shape
        down = (torch.arange(height) + 0.5 - self.center[0]).abs()
        across = (torch.arange(width) + 0.5 - self.center[1]).abs()
        half = torch.maximum(down[:, None], across).ceil().long().flatten()
        sums = torch.zeros(int(half.max()) + 1, dtype=torch.double).index_add_(0, half, self.values.double().flatten())
        return 2 * int((sums.cumsum(0) < share * sums.sum()).sum())


def mean_receptive_field(
    network: nn.Module, images: Iterable[Tensor], stage: int, *, channels: int = 8, seed: int = 0
) -> MeanField:
    """Where the middle of a map looks, over many images and channels, as arXiv 1701.04128 averages it.

    Args:
        network: maps images to a sequence of feature maps, finest first.
        images: normalised images `(1, C, H, W)`, all of one size.
        stage: which of the maps, from 1.
        channels: how many of a map's channels, drawn anew for each image.
        seed: of that draw.

    Returns:
        The mean over images and channels of the gradient's magnitude over the image's colours.
    """
    generator = torch.Generator().manual_seed(seed)
    fields = []
    with _untrained(network), torch.enable_grad():
        for image in images:
            image = image.detach().requires_grad_()
            features = network(image)[stage - 1]
            row, column = features.shape[2] // 2, features.shape[3] // 2
            chosen = torch.randperm(features.shape[1], generator=generator)[:channels].tolist()
            outputs = features[0, chosen, row, column]
            gradients = [torch.autograd.grad(output, image, retain_graph=True)[0][0] for output in outputs]
            fields.append(torch.stack([gradient.norm(dim=0) for gradient in gradients]).mean(dim=0).float().cpu())
    height, width = fields[0].shape
    center = ((row + 0.5) * height / features.shape[2], (column + 0.5) * width / features.shape[3])
    return MeanField(torch.stack(fields).mean(dim=0), center)


@contextmanager
def _untrained(model: nn.Module) -> Iterator[None]:
    """Eval mode, with no gradients of parameters; afterwards all as it was."""
    training = [module for module in model.modules() if module.training]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module in training:
            module.training = True
        for parameter in trained:
            parameter.requires_grad_()
