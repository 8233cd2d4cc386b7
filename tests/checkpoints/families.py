"""Every published architecture at a width of 4 with one block a stage, in this package, timm and transformers."""

from __future__ import annotations

import torch
import transformers
from timm.models.focalnet import FocalNet as TimmFocalNet
from torch import nn

from focalnet_backbone import FocalNet, FocalNetConfig
from focalnet_backbone.variants import VARIANTS, get_variant

# timm's stem always has stride 4, so it has no place for the isotropic models.
TIMM_VARIANTS = [name for name in VARIANTS if not name.endswith("_iso")]
CLASSES = 5


def shrunk(variant: str, **overrides) -> FocalNetConfig:
    """The config of a variant with its family's knobs and small sizes."""
    stages = len(get_variant(variant).config().depths)
    return get_variant(variant).config(
        **{"embed_dim": 4, "depths": [1] * stages, "num_labels": CLASSES, "image_size": 32, **overrides}
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
    return randomise(
        TimmFocalNet(
            num_classes=config.num_labels,
            embed_dim=config.embed_dim,
            depths=config.depths,
            mlp_ratio=config.mlp_ratio,
            focal_levels=config.focal_levels,
            focal_windows=config.focal_windows,
            use_overlap_down=config.use_conv_embed,
            use_post_norm=config.use_post_layernorm,
            use_post_norm_in_modulation=config.use_post_layernorm_in_modulation,
            normalize_modulator=config.normalize_modulator,
            layerscale_value=config.layerscale_value if config.use_layerscale else None,
        )
    )


def transformers_config(config: FocalNetConfig) -> transformers.FocalNetConfig:
    """The same architecture as transformers takes it."""
    knobs = ("image_size", "patch_size", "embed_dim", "use_conv_embed", "hidden_sizes", "depths", "focal_levels")
    knobs += ("focal_windows", "mlp_ratio", "use_layerscale", "use_post_layernorm", "use_post_layernorm_in_modulation")
    knobs += ("normalize_modulator", "encoder_stride", "num_labels")
    return transformers.FocalNetConfig(**{knob: getattr(config, knob) for knob in knobs})


def transformers_model(
    config: FocalNetConfig, kind: str = "FocalNetForImageClassification"
) -> transformers.PreTrainedModel:
    """transformers' model of that architecture, with random weights."""
    return randomise(getattr(transformers, kind)(transformers_config(config)))
