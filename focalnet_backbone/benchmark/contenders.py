"""The implementations that are compared, on the same weights."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from focalnet_backbone.checkpoints import export_state_dict
from focalnet_backbone.models import FocalNetForImageClassification
from focalnet_backbone.network.config import FocalNetConfig

OURS = "ours"
PEERS = ("timm", "transformers")


@dataclass(frozen=True)
class Contender:
    """An implementation: its name, its model, and the features that it makes of images.

    `run` maps `(N, C, H, W)` to the last stage's map through the last norm, `(N, H', W', C')`.
    """

    name: str
    model: nn.Module
    run: Callable[[Tensor], Tensor]


def missing_peers() -> list[str]:
    """Names of the peers that are not installed."""
    return [name for name in PEERS if importlib.util.find_spec(name) is None]


def make_contenders(config: FocalNetConfig, device: torch.device) -> list[Contender]:
    """This package's model and those of the peers that are installed, ours first.

    Nothing is dropped at random, so that all compute the same in train mode too.
    """
    torch.manual_seed(0)
    config = config.replace(drop_path_rate=0.0, hidden_dropout_prob=0.0, num_labels=2)
    master = FocalNetForImageClassification(config)
    makers = {"timm": _make_timm, "transformers": _make_transformers}
    found = [_make_ours(OURS, master)]
    found += [makers[name](config, master.state_dict()) for name in PEERS if name not in missing_peers()]
    for contender in found:
        contender.model.to(device)
    return found


def make_checkpointed(contender: Contender) -> Contender:
    """Our model once more, with the same weights, recomputing whole blocks."""
    model = copy.deepcopy(contender.model)
    for stage in model.layers:
        stage.use_checkpoint = True
    return _make_ours("ours, use_checkpoint", model)


def make_fused(contender: Contender) -> Contender:
    """Our model once more, with the same weights, fused."""
    return _make_ours("ours, fused", copy.deepcopy(contender.model).fuse())


def _make_ours(name: str, model: FocalNetForImageClassification) -> Contender:
    return Contender(name, model, lambda x: model.encode(x)[0])


def timm_arguments(config: FocalNetConfig) -> dict[str, Any]:
    """What timm's FocalNet is called with for the same architecture."""
    return {
        "in_chans": config.num_channels,
        "num_classes": config.num_labels,
        "embed_dim": config.embed_dim,
        "depths": config.depths,
        "mlp_ratio": config.mlp_ratio,
        "focal_levels": config.focal_levels,
        "focal_windows": config.focal_windows,
        "use_overlap_down": config.use_conv_embed,
        "use_post_norm": config.use_post_layernorm,
        "use_post_norm_in_modulation": config.use_post_layernorm_in_modulation,
        "normalize_modulator": config.normalize_modulator,
        "layerscale_value": config.layerscale_value if config.use_layerscale else None,
        "drop_path_rate": config.drop_path_rate,
    }


def transformers_arguments(config: FocalNetConfig) -> dict[str, Any]:
    """What transformers' FocalNetConfig is called with for the same architecture."""
    knobs = ("image_size", "patch_size", "num_channels", "embed_dim", "use_conv_embed", "hidden_sizes", "depths")
    knobs += ("focal_levels", "focal_windows", "mlp_ratio", "use_layerscale", "use_post_layernorm", "drop_path_rate")
    knobs += ("use_post_layernorm_in_modulation", "normalize_modulator", "encoder_stride", "num_labels")
    return {knob: getattr(config, knob) for knob in knobs}


def _make_timm(config: FocalNetConfig, weights: dict[str, Tensor]) -> Contender:
    from timm.models.focalnet import FocalNet

    model = FocalNet(**timm_arguments(config))
    model.load_state_dict(export_state_dict(weights, "timm", use_post_layernorm=config.use_post_layernorm))
    # Its faster layout.
    model.to(memory_format=torch.channels_last)
    return Contender("timm", model, lambda x: model.forward_features(x).permute(0, 2, 3, 1))


def _make_transformers(config: FocalNetConfig, weights: dict[str, Tensor]) -> Contender:
    import transformers

    theirs = transformers.FocalNetConfig(**transformers_arguments(config))
    model = transformers.FocalNetForImageClassification(theirs)
    model.load_state_dict(export_state_dict(weights, "transformers"))
    stride = config.stage_strides[-1]

    def run(x: Tensor) -> Tensor:
        tokens = model.focalnet(x).last_hidden_state
        return tokens.unflatten(1, (-(-x.shape[2] // stride), -(-x.shape[3] // stride)))

    return Contender("transformers", model, run)
