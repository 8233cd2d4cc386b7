"""The published weight formats: recognising them, and renaming tensors into and out of the native names.

Native names are those of the reference release. The other formats hold the same numbers under other names:
transformers, and timm, which also writes linear layers as 1x1 convolutions and counts a downsampling to the stage
that it leads into.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from focalnet_backbone.checkpoints.errors import CheckpointError

logger = logging.getLogger(__name__)

FORMATS = ("native", "transformers", "timm")

_BLOCK = "layers.#.blocks.#"
_TRANSFORMERS_BLOCK = "encoder.stages.#.layers.#"

# Module paths, native to other; # stands for an index. What is in no table has no place in that format.
_TRANSFORMERS_NAMES = {
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "patch_embed.norm": "embeddings.norm",
    "mask_token": "embeddings.mask_token",
    f"{_BLOCK}.modulation.f": f"{_TRANSFORMERS_BLOCK}.modulation.projection_in",
    f"{_BLOCK}.modulation.h": f"{_TRANSFORMERS_BLOCK}.modulation.projection_context",
    f"{_BLOCK}.modulation.proj": f"{_TRANSFORMERS_BLOCK}.modulation.projection_out",
    f"{_BLOCK}.modulation.ln": f"{_TRANSFORMERS_BLOCK}.modulation.layernorm",
    f"{_BLOCK}.modulation.focal_layers.#": f"{_TRANSFORMERS_BLOCK}.modulation.focal_layers.#",
    **{
        f"{_BLOCK}.{name}": f"{_TRANSFORMERS_BLOCK}.{name}"
        for name in ("norm1", "norm2", "gamma_1", "gamma_2", "mlp.fc1", "mlp.fc2")
    },
    "layers.#.downsample.proj": "encoder.stages.#.downsample.projection",
    "layers.#.downsample.norm": "encoder.stages.#.downsample.norm",
    "norm": "layernorm",
    "head": "classifier",
    "decoder": "decoder",
}
_TIMM_NAMES = {
    "patch_embed": "stem",
    f"{_BLOCK}.norm1": f"{_BLOCK}.norm1",
    f"{_BLOCK}.norm2": f"{_BLOCK}.norm2",
    f"{_BLOCK}.gamma_1": f"{_BLOCK}.ls1.gamma",
    f"{_BLOCK}.gamma_2": f"{_BLOCK}.ls2.gamma",
    f"{_BLOCK}.modulation.ln": f"{_BLOCK}.modulation.norm",
    f"{_BLOCK}.modulation": f"{_BLOCK}.modulation",
    f"{_BLOCK}.mlp": f"{_BLOCK}.mlp",
    "layers.#.downsample": "layers.#.downsample",
    "norm": "norm",
    "head": "head.fc",
}
# timm names a norm after its branch differently, which tells the two kinds of block apart.
_TIMM_POST_NORMS = {f"{_BLOCK}.norm1": f"{_BLOCK}.norm1_post", f"{_BLOCK}.norm2": f"{_BLOCK}.norm2_post"}
_TIMM_CONVOLUTIONS = re.compile(r"\.(modulation\.(f|proj)|mlp\.fc[12])\.weight$")

# The projection in a focal modulation, which only a FocalNet has; what stands before its path is the prefix.
_NATIVE_MARK = re.compile(r"((?:.*\.)?)layers[._]\d+\.blocks\.\d+\.modulation\.f\.weight")
_TRANSFORMERS_MARK = re.compile(r"((?:.*\.)?)encoder\.stages\.\d+\.layers\.\d+\.modulation\.projection_in\.weight")
_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Wrappers around wrappers that are looked into.
_DEEPEST = 8
# Where one file holds several sets of weights, the first of these is taken.
_WRAPPERS = ("model", "state_dict", "teacher", "model_ema", "state_dict_ema", "ema_state_dict")


@dataclass(frozen=True)
class Weights:
    """Weights under native names, and what their source told about them.

    Attributes:
        tensors: by native name; names that no FocalNet has are kept as they were.
        format: "native", "transformers" or "timm".
        knobs: `FocalNetConfig` knobs that the source states, beyond what the shapes show.
        rest: names of the checkpoint's tensors that belong to other parts, such as a detector's neck and head.
    """

    tensors: dict[str, Tensor]
    format: str
    knobs: dict[str, Any]
    rest: tuple[str, ...]


def convert_state_dict(state_dict: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """Rename any published FocalNet weights into native names, every number untouched.

    Args:
        state_dict: tensors (or numpy arrays) by name, in any of the formats, also inside wrappers such as
            `{"model": ...}` and under prefixes such as `backbone.`. The other parts of a detector or segmenter are
            left out of the result.

    Returns:
        The tensors by native name, and the format found: "native", "transformers" or "timm".

    Raises:
        CheckpointError: there are no FocalNet weights in it, or several.
    """
    weights = recognise(state_dict)
    return weights.tensors, weights.format


def recognise(checkpoint: Any) -> Weights:
    """Find the FocalNet weights in what a file held, and rename them. Raises `CheckpointError` as above."""
    state_dict = _unwrap(checkpoint)
    if state_dict is None:
        raise CheckpointError(f"holds no FocalNet weights: {_describe(checkpoint)}")
    marks = {match[1]: match.re for name in state_dict if (match := _match_mark(name))}
    if len(marks) > 1:
        raise CheckpointError(
            f"holds several FocalNets, under the prefixes {', '.join(map(repr, sorted(marks)))}; "
            "pass the state dict of the one that you want"
        )
    ((prefix, mark),) = marks.items()
    if mark is _TRANSFORMERS_MARK:
        return _read_transformers(state_dict, prefix)
    own, rest = _split_by_prefix(state_dict, prefix)
    own = {re.sub(r"^layers_(\d+)", r"layers.\1", name): tensor for name, tensor in own.items()}
    if any(tensor.ndim == 4 for name, tensor in own.items() if name.endswith(".modulation.f.weight")):
        return _read_timm(own, rest)
    own.update(_take_decoder(rest, own, prefix, trunk="encoder."))
    return Weights(own, "native", {}, tuple(rest))


def export_state_dict(
    native: Mapping[str, Tensor], to: str, *, use_post_layernorm: bool | None = None
) -> dict[str, Tensor]:
    """Rename native weights into another format, every number untouched.

    Args:
        native: tensors by native name, as `convert_state_dict` gives them.
        to: "native", "transformers" (names of `FocalNetModel`, or of the task models if there is a head or a
            decoder) or "timm".
        use_post_layernorm: knob of the model that the weights are from; timm's names depend on it.

    Raises:
        CheckpointError: a tensor has no place in that format; nothing is left out silently.
        ValueError: `to` is no format, or is "timm" and `use_post_layernorm` is not given.
    """
    if to not in FORMATS:
        raise ValueError(f"to must be one of {FORMATS}, got {to!r}")
    if to == "native":
        return dict(native)
    if to == "timm":
        if use_post_layernorm is None:
            raise ValueError("use_post_layernorm must be given for timm, whose names depend on it")
        return _write_timm(native, use_post_layernorm)
    return _write_transformers(native)


def check_values(tensors: Mapping[str, Tensor]) -> None:
    """Raise `CheckpointError` if a tensor holds NaN, infinities or other things than floating-point numbers."""
    for name, tensor in tensors.items():
        if tensor.dtype not in _TYPES or tensor.layout is not torch.strided or tensor.is_meta:
            found = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
            raise CheckpointError(f"{name} ({found}) does not hold plain floating-point numbers of 16 bits or more")
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{name} contains NaN or infinite values: the weights are damaged")


def check_finite(model: nn.Module, tensors: Mapping[str, Any]) -> None:
    """Raise `CheckpointError`, with names, if NaN or infinities would get into a model's weights or statistics.

    Other buffers may hold infinities, as masks of attention do.
    """
    buffers = {name for name, _ in model.named_buffers() if "running_" in name}
    wanted = {name for name, _ in model.named_parameters()} | buffers
    damaged = [
        name
        for name, tensor in tensors.items()
        if name in wanted and isinstance(tensor, Tensor) and not torch.isfinite(tensor).all()
    ]
    if damaged:
        names = ", ".join(damaged[:3]) + (f" and {len(damaged) - 3} more" if len(damaged) > 3 else "")
        raise CheckpointError(f"{names} contain NaN or infinite values: the weights are damaged")


def _read_transformers(state_dict: dict[str, Tensor], prefix: str) -> Weights:
    own, rest = _split_by_prefix(state_dict, prefix)
    tensors = {}
    for name, tensor in own.items():
        tensors[_rename(name, _invert(_TRANSFORMERS_NAMES)) or name] = tensor
    task_prefix = prefix.removesuffix("focalnet.")
    for name in [n for n in rest if n.startswith(f"{task_prefix}classifier.")]:
        tensors[name.replace(f"{task_prefix}classifier.", "head.")] = rest.pop(name)
    tensors.update(_take_decoder(rest, tensors, prefix, trunk="focalnet."))
    return Weights(tensors, "transformers", {}, tuple(rest))


def _write_transformers(native: Mapping[str, Tensor]) -> dict[str, Tensor]:
    of_task_model = any(name.startswith(("head.", "decoder.", "mask_token")) for name in native)
    exported = {}
    for name, tensor in native.items():
        renamed = _rename(name, _TRANSFORMERS_NAMES)
        if renamed is None:
            raise CheckpointError(_no_place(name, "transformers"))
        outside = renamed.startswith(("classifier.", "decoder."))
        exported[f"focalnet.{renamed}" if of_task_model and not outside else renamed] = tensor
    return exported


def _read_timm(own: dict[str, Tensor], rest: dict[str, Tensor]) -> Weights:
    post_norm = any(".norm1_post." in name for name in own)
    names = _invert({**_TIMM_NAMES, **(_TIMM_POST_NORMS if post_norm else {})})
    tensors = {}
    for name, tensor in own.items():
        native = _rename(_shift_downsample(name, -1), names) or name
        if _TIMM_CONVOLUTIONS.search(native) and tensor.ndim == 4 and tensor.shape[2:] == (1, 1):
            tensor = tensor.flatten(1)
        tensors[native] = tensor
    return Weights(tensors, "timm", {"use_post_layernorm": post_norm}, tuple(rest))


def _write_timm(native: Mapping[str, Tensor], post_norm: bool) -> dict[str, Tensor]:
    names = {**_TIMM_NAMES, **(_TIMM_POST_NORMS if post_norm else {})}
    exported = {}
    for name, tensor in native.items():
        renamed = _rename(name, names)
        if renamed is None:
            raise CheckpointError(_no_place(name, "timm"))
        if name == "patch_embed.proj.weight" and tensor.shape[-1] not in (4, 7):
            raise CheckpointError(f"timm's stem has stride 4 and cannot hold patches of {tensor.shape[-1]} pixels")
        if _TIMM_CONVOLUTIONS.search(name):
            tensor = tensor[:, :, None, None]
        exported[_shift_downsample(renamed, +1)] = tensor
    return exported


def _shift_downsample(name: str, shift: int) -> str:
    return re.sub(r"^layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) + shift}.downsample", name)


def _take_decoder(rest: dict[str, Tensor], own: dict[str, Tensor], prefix: str, trunk: str) -> dict[str, Tensor]:
    """Move a masked-image decoder, which stands beside its trunk, out of the rest."""
    # Segmenters too have a "decoder" beside an "encoder"; a mask token shows what this one is.
    if "mask_token" not in own or not prefix.endswith(trunk):
        return {}
    decoder = prefix.removesuffix(trunk) + "decoder."
    return {"decoder." + name.removeprefix(decoder): rest.pop(name) for name in list(rest) if name.startswith(decoder)}


def _no_place(name: str, to: str) -> str:
    hint = " (an output norm of a detection backbone)" if re.match(r"norm\d+\.", name) else ""
    return f"{to} has no place for {name}{hint}"


def _rename(name: str, names: Mapping[str, str]) -> str | None:
    """The name with its module path looked up in a table, or None if it is not there."""
    path = name
    tail = ""
    while path:
        pattern = re.sub(r"(?<=\.)\d+(?=\.|$)", "#", path)
        if pattern in names:
            indices = re.findall(r"(?<=\.)\d+(?=\.|$)", path)
            return names[pattern].replace("#", "{}").format(*indices) + tail
        path, _, last = path.rpartition(".")
        tail = f".{last}{tail}"
    return None


def _invert(names: Mapping[str, str]) -> dict[str, str]:
    return {other: native for native, other in names.items()}


def _match_mark(name: Any) -> re.Match | None:
    return _NATIVE_MARK.fullmatch(str(name)) or _TRANSFORMERS_MARK.fullmatch(str(name))


def _unwrap(checkpoint: Any) -> Mapping[str, Any] | None:
    """The mapping that holds FocalNet weights, wherever in the checkpoint it is; None if there is none."""
    found: dict[int, Mapping[str, Any] | None] = {}

    def look_into(value: Any, depth: int) -> Mapping[str, Any] | None:
        # No deeper, as a damaged or malicious one may hold itself; and each but once, as it may hold one many times.
        if not isinstance(value, Mapping) or depth > _DEEPEST:
            return None
        if any(_match_mark(name) for name in value):
            return value
        if id(value) not in found:
            found[id(value)] = None
            found[id(value)] = _choose({key: look_into(part, depth + 1) for key, part in value.items()})
        return found[id(value)]

    return look_into(checkpoint, 0)


def _choose(found: Mapping[str, Mapping[str, Any] | None]) -> Mapping[str, Any] | None:
    """The set of weights to take of those under several keys; None if there are none under any."""
    wrapped = {key: inner for key, inner in found.items() if inner is not None}
    if not wrapped:
        return None
    chosen = next((key for key in _WRAPPERS if key in wrapped), next(iter(wrapped)))
    if len(wrapped) > 1:
        logger.warning(
            "the checkpoint holds FocalNet weights under %s; taking %r", ", ".join(map(repr, wrapped)), chosen
        )
    return wrapped[chosen]


def _split_by_prefix(state_dict: Mapping[str, Any], prefix: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    own, rest = {}, {}
    for name, value in state_dict.items():
        name = str(name)
        tensor = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        if isinstance(tensor, Tensor) and name.startswith(prefix):
            own[name.removeprefix(prefix)] = tensor.detach()
        elif name.startswith(prefix) and name.endswith((".weight", ".bias")):
            raise CheckpointError(f"{name} is not a tensor; numpy arrays too are read only from a state dict in memory")
        else:
            rest[name] = value
    return own, rest


def _describe(checkpoint: Any) -> str:
    """What a file held, for an error message."""
    if not isinstance(checkpoint, Mapping):
        return f"it is a {type(checkpoint).__name__}, not a state dict"
    if not checkpoint:
        return "it is empty"
    names = []
    inner: Any = checkpoint
    for _ in range(_DEEPEST):
        if not isinstance(inner, Mapping) or not inner:
            break
        names = list(map(str, inner))
        inner = next((inner[key] for key in _WRAPPERS if isinstance(inner.get(key), Mapping)), None)
    return (
        f"its names are {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}, with no focal modulation among them"
    )
