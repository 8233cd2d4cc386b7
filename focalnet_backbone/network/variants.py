"""The published models by name: architecture, size, and where their weights live."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from focalnet_backbone.system.spelling import closest

RELEASE = "https://github.com/microsoft/FocalNet/releases/download/v1.0.0"


@dataclass(frozen=True)
class Variant:
    """A published model.

    Attributes:
        knobs: the `FocalNetConfig` knobs in which it differs from the defaults.
        num_classes: classes of the published head.
        pretrained_on: data set of the published weights.
        pretrained_size: image size in pixels that they were trained at.
        published_params: parameters in millions, as the paper or the release gives them.
        published_macs: multiply-accumulates in billions at 224x224 likewise, if given.
        published_top1: ImageNet-1k top-1 accuracy in percent likewise, if given.
        weights: where weights can be had, best first: kind of source to address. Kinds are "timm" and
            "transformers" (hub repositories in those formats), "release" (a file of the authors' release),
            "authors" and "mirror" (hub repositories with release files, as `repository` or `repository:file`).
    """

    name: str
    knobs: Mapping[str, Any]
    num_classes: int
    pretrained_on: str
    pretrained_size: int
    published_params: float
    published_macs: float | None = None
    published_top1: float | None = None
    weights: Mapping[str, str] = field(default_factory=dict)


def _imagenet_1k(size: str, kernels: str, knobs: dict, params: float, macs: float, top1: float) -> Variant:
    levels = {"srf": 2, "lrf": 3, "iso": 3}[kernels]
    stages = len(knobs["depths"])
    name = f"focalnet_{size}_{kernels}"
    weights = {}
    if kernels != "iso":
        weights = {
            "timm": f"timm/{name}.ms_in1k",
            "transformers": f"microsoft/focalnet-{size}" + ("-lrf" if kernels == "lrf" else ""),
            "release": f"{RELEASE}/{name}.pth",
        }
    knobs = {"focal_levels": [levels] * stages, "focal_windows": [3] * stages, **knobs}
    return Variant(name, knobs, 1000, "imagenet-1k", 224, params, macs, top1, weights)


def _imagenet_22k(size: str, levels: int, window: int, knobs: dict, params: float, weights: dict) -> Variant:
    knobs = {
        "depths": [2, 2, 18, 2],
        "focal_levels": [levels] * 4,
        "focal_windows": [window] * 4,
        "use_conv_embed": True,
        "use_post_layernorm": True,
        "use_layerscale": True,
        **knobs,
    }
    name = f"focalnet_{size}_fl{levels}"
    weights = {"timm": f"timm/{name}.ms_in22k", **weights}
    pixels = 224 if size == "huge" else 384
    return Variant(name, knobs, 21842, "imagenet-22k", pixels, params, weights=weights)


def _large_weights(size: str, levels: int) -> dict[str, str]:
    suffix = "_fl4" if levels == 4 else ""
    return {
        "release": f"{RELEASE}/focalnet_{size}_lrf_384{suffix}.pth",
        "authors": f"microsoft/focalnet-{size}-lrf-fl{levels}",
    }


def _huge_weights(levels: int) -> dict[str, str]:
    return {"mirror": f"xiuqhou/FocalNet:focalnet_huge_lrf_224{'_fl4' if levels == 4 else ''}.pth"}


_TINY = {"embed_dim": 96, "depths": [2, 2, 6, 2]}
_SMALL = {"embed_dim": 96, "depths": [2, 2, 18, 2]}
_BASE = {"embed_dim": 128, "depths": [2, 2, 18, 2]}
_ISOTROPIC = {"depths": [12], "patch_size": 16}
_POST_NORM = {"use_layerscale": True, "use_post_layernorm": True}
_NORMALIZED = {"normalize_modulator": True}
_HUGE = {"embed_dim": 352, "use_post_layernorm_in_modulation": True}

VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        variant.name: variant
        for variant in (
            _imagenet_1k("tiny", "srf", _TINY, 28.4, 4.4, 82.1),
            _imagenet_1k("tiny", "lrf", _TINY, 28.6, 4.5, 82.3),
            _imagenet_1k("small", "srf", _SMALL, 49.9, 8.6, 83.4),
            _imagenet_1k("small", "lrf", _SMALL, 50.3, 8.7, 83.5),
            _imagenet_1k("base", "srf", _BASE, 88.1, 15.3, 83.7),
            _imagenet_1k("base", "lrf", _BASE, 88.7, 15.4, 83.9),
            _imagenet_1k("tiny", "iso", {**_ISOTROPIC, "embed_dim": 192}, 5.9, 1.1, 74.1),
            _imagenet_1k("small", "iso", {**_ISOTROPIC, "embed_dim": 384}, 22.4, 4.3, 80.9),
            _imagenet_1k("base", "iso", {**_ISOTROPIC, **_POST_NORM, "embed_dim": 768}, 87.2, 16.9, 82.4),
            _imagenet_22k("large", 3, 5, {"embed_dim": 192}, 207, _large_weights("large", 3)),
            # The classification release divides this model's modulator, as its weights were trained; timm does not.
            _imagenet_22k("large", 4, 3, {"embed_dim": 192, **_NORMALIZED}, 207, _large_weights("large", 4)),
            _imagenet_22k("xlarge", 3, 5, {"embed_dim": 256}, 366, _large_weights("xlarge", 3)),
            _imagenet_22k("xlarge", 4, 3, {"embed_dim": 256}, 366, _large_weights("xlarge", 4)),
            _imagenet_22k("huge", 3, 3, _HUGE, 687, _huge_weights(3)),
            _imagenet_22k("huge", 4, 3, _HUGE, 689, _huge_weights(4)),
        )
    }
)
"""Every published model by name, smallest family first."""


def list_variants(pattern: str = "*") -> list[str]:
    """Names of the published models that match a shell-style pattern, such as `"*_lrf"`."""
    return [name for name in VARIANTS if fnmatch.fnmatch(name, pattern)]


def get_variant(name: str) -> Variant:
    """The published model of that name. Raises `KeyError` with the closest names if there is none."""
    if name not in VARIANTS:
        raise KeyError(f"no FocalNet variant {name!r}.{closest(name, VARIANTS)} All: {', '.join(VARIANTS)}")
    return VARIANTS[name]


def find_variant(source: Any) -> Variant | None:
    """The published model of that name, or with weights at that address that come without a config; None if none."""
    if not isinstance(source, str):
        return None
    if source in VARIANTS:
        return VARIANTS[source]
    for variant in VARIANTS.values():
        if any(source == address for kind, address in variant.weights.items() if kind != "transformers"):
            return variant
    return None
