"""Folding the constant factors of a block into its weights, and having it keep them packed, for inference."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from focalnet_backbone.fast.packing import PackedWeights


@torch.no_grad()
def fuse_blocks(blocks: list[nn.Module]) -> None:
    """Fold layer scale into the layer before it, and the division by L + 1 into the projection `h`; pack weights.

    Raises:
        TypeError: a layer that would take a factor is not the one that the block was built with.
    """
    for block in blocks:
        for layer, kind in _layers_with_factors(block):
            if type(layer) is not kind:
                raise TypeError(f"cannot fold a factor into a {type(layer).__name__}, only into a {kind.__name__}")
    for block in blocks:
        modulation = block.modulation
        if modulation.normalize_modulator:
            factor = modulation.h.weight.new_full((modulation.dim,), 1 / (modulation.focal_level + 1))
            modulation.h.weight = _scaled(modulation.h.weight, factor)
            modulation.normalize_modulator = False
        if block.gamma_1 is not None:
            post = block.use_post_layernorm
            _scale(block.norm1 if post else modulation.proj, block.gamma_1)
            _scale(block.norm2 if post else block.mlp.fc2, block.gamma_2)
            block.gamma_1 = block.gamma_2 = None
        block.packed_weights = PackedWeights()


def _layers_with_factors(block: nn.Module) -> list[tuple[nn.Module, type[nn.Module]]]:
    norms = [(block.norm1, nn.LayerNorm), (block.norm2, nn.LayerNorm)]
    linears = [(block.modulation.proj, nn.Linear), (block.mlp.fc2, nn.Linear)]
    return [(block.modulation.h, nn.Conv2d), *(norms if block.use_post_layernorm else linears)]


def _scale(layer: nn.Module, gamma: Tensor) -> None:
    layer.weight, layer.bias = _scaled(layer.weight, gamma), _scaled(layer.bias, gamma)


def _scaled(parameter: Tensor, factor: Tensor) -> nn.Parameter:
    """A parameter times one factor for each of its rows. A new one, as others may hold the old."""
    return nn.Parameter(parameter * factor.view(-1, *[1] * (parameter.ndim - 1)), requires_grad=False)
