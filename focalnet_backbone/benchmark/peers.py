"""timm's and transformers' FocalNets as backbones of whole models: the same maps as ours, each through a norm."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from focalnet_backbone.benchmark.contenders import timm_arguments, transformers_arguments
from focalnet_backbone.network.backbone import FocalNet


class PeerPyramid(nn.Module):
    """Maps images `(N, 3, H, W)` to a tuple of `(N, C_i, H_i, W_i)` at strides 4 to 32, with random weights.

    Args:
        model: the peer's.
        stages: gives the maps `(N, H_i, W_i, C_i)` before each downsampling.
        channels: C_i.
    """

    def __init__(self, model: nn.Module, stages: Callable[[nn.Module, Tensor], Iterator[Tensor]], channels: list[int]):
        super().__init__()
        self.model, self.stages = model, stages
        self.norms = nn.ModuleList(map(nn.LayerNorm, channels))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images to the pyramid."""
        maps = zip(self.norms, self.stages(self.model, images), strict=True)
        return tuple(norm(x).permute(0, 3, 1, 2) for norm, x in maps)


def make_peer(name: str, ours: FocalNet) -> PeerPyramid:
    """The same architecture by `"timm"` (channels-last, its faster layout) or `"transformers"`, all four maps of it."""
    config = ours.config
    if name == "timm":
        from timm.models.focalnet import FocalNet as TimmFocalNet

        model = TimmFocalNet(**{**timm_arguments(config), "num_classes": 0}).to(memory_format=torch.channels_last)
        model.norm = nn.Identity()
        return PeerPyramid(model, _timm_stages, config.stage_channels)
    from transformers import FocalNetConfig, FocalNetModel

    model = FocalNetModel(FocalNetConfig(**transformers_arguments(config)), add_pooling_layer=False)
    model.layernorm = nn.Identity()
    return PeerPyramid(model, _transformers_stages, config.stage_channels)


def _timm_stages(model: nn.Module, images: Tensor) -> Iterator[Tensor]:
    x = model.stem(images)
    for stage in model.layers:
        x = stage(x)
        yield x.permute(0, 2, 3, 1)


def _transformers_stages(model: nn.Module, images: Tensor) -> Iterator[Tensor]:
    tokens, size = model.embeddings(images)
    for stage in model.encoder.stages:
        tokens, before, (*_, height, width) = stage(tokens, size)
        yield before.unflatten(1, size)
        size = (height, width)
