"""Reading a model's architecture off its weights."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from focalnet_backbone.checkpoints.adapt import count_levels
from focalnet_backbone.checkpoints.errors import CheckpointError
from focalnet_backbone.checkpoints.formats import Weights
from focalnet_backbone.network.config import FocalNetConfig
from focalnet_backbone.network.variants import VARIANTS

# Knobs that tell a family of models from another; the others are only sizes.
_FAMILY = (
    "patch_size",
    "use_conv_embed",
    "use_layerscale",
    "use_post_layernorm",
    "use_post_layernorm_in_modulation",
)


def infer_knobs(native: Mapping[str, Tensor]) -> dict[str, Any]:
    """The `FocalNetConfig` knobs that the shapes of native weights show.

    Raises `CheckpointError` if the stem or a block's projection is missing.
    """
    blocks = {(int(m[1]), int(m[2])) for name in native if (m := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name))}
    depths = [number for _, number in sorted(Counter(stage for stage, _ in blocks).items())]
    try:
        embed_dim, num_channels, _, kernel = native["patch_embed.proj.weight"].shape
        modulations = [f"layers.{stage}.blocks.0.modulation" for stage in range(len(depths))]
        knobs: dict[str, Any] = {
            "num_channels": num_channels,
            "embed_dim": embed_dim,
            "use_conv_embed": kernel == 7,
            "patch_size": 4 if kernel == 7 else kernel,
            "depths": depths,
            "mlp_ratio": native["layers.0.blocks.0.mlp.fc1.weight"].shape[0] / embed_dim,
            "use_layerscale": "layers.0.blocks.0.gamma_1" in native,
            "use_post_layernorm_in_modulation": "layers.0.blocks.0.modulation.ln.weight" in native,
            "focal_levels": [count_levels(native, path) for path in modulations],
            "focal_windows": [native[f"{path}.focal_layers.0.0.weight"].shape[-1] for path in modulations],
        }
    except KeyError as error:
        raise CheckpointError(f"lacks {error.args[0]}, so its architecture cannot be told") from None
    if "head.weight" in native:
        knobs["num_labels"] = native["head.weight"].shape[0]
    if "decoder.0.weight" in native:
        knobs["encoder_stride"] = math.isqrt(native["decoder.0.weight"].shape[0] // num_channels)
    return knobs


def infer_config(weights: Weights, stated: FocalNetConfig | None = None) -> FocalNetConfig | None:
    """The config of the model that weights are from.

    What no shape shows (such as where the blocks normalise) comes from the config stated for them, or else from the
    published variant of those shapes.

    Returns:
        The config; None if nothing is stated and no variant has those shapes.

    Raises:
        CheckpointError: the weights and the stated config contradict each other.
    """
    knobs = {**infer_knobs(weights.tensors), **weights.knobs}
    if stated is None:
        shown = [knob for knob in knobs if knob not in ("num_labels", "encoder_stride")]
        configs = [FocalNetConfig.from_variant(name) for name in VARIANTS]
        stated = next((config for config in configs if not _contradictions(config, knobs, shown)), None)
        return stated and stated.replace(**knobs)
    for knob in _contradictions(stated, knobs, _FAMILY):
        raise CheckpointError(f"has {knob}={knobs[knob]}, but the architecture given for it {getattr(stated, knob)}")
    return stated.replace(**knobs)


def _contradictions(config: FocalNetConfig, knobs: Mapping[str, Any], compared: Iterable[str]) -> list[str]:
    return [knob for knob in compared if knob in knobs and getattr(config, knob) != knobs[knob]]
