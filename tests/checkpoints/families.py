"""Every published architecture at a width of 4 with one block a stage, in this package, timm and transformers."""

from __future__ import annotations

import torch
import transformers
from timm.models.focalnet import FocalNet as TimmFocalNet
from torch import nn

from focalnet_backbone import FocalNet, FocalNetConfig
from focalnet_backbone.benchmark.contenders import timm_arguments, transformers_arguments
from focalnet_backbone.network.variants import VARIANTS

# timm's stem always has stride 4, so it has no place for the isotropic models.
TIMM_VARIANTS = [name for name in VARIANTS if not name.endswith("_iso")]
CLASSES = 5


def shrunk(variant: str, **overrides) -> FocalNetConfig:
    """The config of a variant with its family's knobs and small sizes."""
    stages = len(FocalNetConfig.from_variant(variant).depths)
    return FocalNetConfig.from_variant(
        variant, **{"embed_dim": 4, "depths": [1] * stages, "num_labels": CLASSES, "image_size": 32, **overrides}
    )


def randomise(model: nn.Module, scale: float = 0.5) -> nn.Module:
    """Give every parameter random values, so that no two tensors can be mistaken for each other; eval mode."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model.eval()


def backbone(variant: str = "focalnet_tiny_srf", **overrides) -> FocalNet:
    """A small backbone with all output norms."""
    config = shrunk(variant, **overrides)
    return randomise(FocalNet(config, out_indices=range(1, len(config.depths) + 1)))


def timm_model(config: FocalNetConfig) -> TimmFocalNet:
    """timm's model of that architecture, with random weights."""
    return randomise(TimmFocalNet(**timm_arguments(config)))


def transformers_config(config: FocalNetConfig) -> transformers.FocalNetConfig:
    """The same architecture as transformers takes it."""
    return transformers.FocalNetConfig(**transformers_arguments(config))


def transformers_model(
    config: FocalNetConfig, kind: str = "FocalNetForImageClassification"
) -> transformers.PreTrainedModel:
    """transformers' model of that architecture, with random weights."""
    return randomise(getattr(transformers, kind)(transformers_config(config)))
