"""Every architecture knob of the FocalNet family, named as in transformers and checked once."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from focalnet_backbone.network.alignment import align_labels, align_outputs
from focalnet_backbone.network.variants import get_variant
from focalnet_backbone.system.files import whole_file
from focalnet_backbone.system.inputs import read_json
from focalnet_backbone.system.numbers import as_float, as_int, as_ints, is_int
from focalnet_backbone.system.spelling import closest
from focalnet_backbone.system.switches import check_switch

ACTIVATIONS = ("gelu", "relu", "selu", "gelu_new")
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
MOST = {"depths": 1000, "focal_levels": 100, "focal_windows": 1001}
"""What no stage has more of; building it would keep the machine busy for long before it failed."""
PER_STAGE_DEFAULTS = {"focal_levels": 2, "focal_windows": 3}
CONFIG_FILE = "config.json"


def _explain_unknown_keywords(cls: type) -> type:
    """Make an unknown keyword argument of `cls(...)` a TypeError that names the closest right one."""
    generated = cls.__init__

    @functools.wraps(generated)
    def __init__(self, *args, **kwargs):
        names = [f.name for f in fields(cls) if f.init]
        for name in kwargs:
            if name not in names:
                raise TypeError(f"{cls.__name__} has no knob {name!r}.{closest(name, names)}")
        generated(self, *args, **kwargs)

    cls.__init__ = __init__
    return cls


@_explain_unknown_keywords
@dataclass
class FocalNetConfig:
    """Architecture of a FocalNet (arXiv 2203.11926), with transformers' names and defaults.

    Knobs that default to None are derived from the others; after construction they hold their values.
    A wrong value raises `ValueError` (or `TypeError`) with the knob, the value and what is allowed; an
    unknown keyword is a `TypeError` with the closest right name.

    Args:
        image_size: input size in pixels, an int or (height, width). Any size works at run time; the models
            with masked inputs take their mask grid from it.
        patch_size: side and stride of the stem's patches in pixels; 4 for the convolutional stem.
        num_channels: channels of the input image.
        embed_dim: channels after the stem; they double at every further stage.
        use_conv_embed: overlapping convolutions instead of patches, in the stem (7x7, stride 4) and
            between the stages (3x3, stride 2).
        hidden_sizes: channels after each stage's downsampling; derived from `embed_dim` and `depths`.
        depths: blocks in each stage.
        focal_levels: focal levels in each stage; [2, 2, ...] by default.
        focal_windows: kernel size of each stage's first focal level; each next level's is 2 larger.
            [3, 3, ...] by default.
        hidden_act: "gelu", "relu", "selu", "gelu_new" or a callable, in the blocks' MLPs.
        mlp_ratio: hidden width of the MLPs over the block's width.
        hidden_dropout_prob: dropout after the stem, in the modulation's output projection and in the MLPs.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0 at the first.
        use_layerscale: scale both residual branches by learned per-channel factors...
        layerscale_value: ...that start from this value.
        use_post_layernorm: normalise what a branch returns rather than what it takes.
        use_post_layernorm_in_modulation: LayerNorm on the modulated features, before their projection.
        normalize_modulator: divide the aggregated context by the number of focal levels + 1.
        initializer_range: standard deviation of the truncated normal that linear weights start from.
        layer_norm_eps: epsilon of every LayerNorm.
        encoder_stride: upsampling factor of the masked-image decoder.
        out_features: names of the feature maps that the backbone returns, out of `stage_names`.
        out_indices: the same by index into `stage_names` (0 is the stem); neither given is the last stage.
        num_labels: classes of a classifier, 2 or the length of `id2label`.
        id2label: class index to name.
        label2id: class name to index.
        problem_type: None, "regression", "single_label_classification" or "multi_label_classification".
        output_hidden_states: whether the models return their hidden states by default.
        return_dict: whether the models return output objects (True) or tuples by default.
        conv_embed_stem_padding: padding in pixels of the convolutional stem: 2, as in the classification
            release, the DINO release, transformers and timm; or 3, as in the mmdetection and mmsegmentation releases.
    """

    model_type: ClassVar[str] = "focalnet"

    image_size: int | tuple[int, int] = 224
    patch_size: int = 4
    num_channels: int = 3
    embed_dim: int = 96
    use_conv_embed: bool = False
    hidden_sizes: Sequence[int] | None = None
    depths: Sequence[int] = (2, 2, 6, 2)
    focal_levels: Sequence[int] | None = None
    focal_windows: Sequence[int] | None = None
    hidden_act: str | Callable = "gelu"
    mlp_ratio: float = 4.0
    hidden_dropout_prob: float = 0.0
    drop_path_rate: float = 0.1
    use_layerscale: bool = False
    layerscale_value: float = 1e-4
    use_post_layernorm: bool = False
    use_post_layernorm_in_modulation: bool = False
    normalize_modulator: bool = False
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-5
    encoder_stride: int = 32
    out_features: Sequence[str] | None = None
    out_indices: Sequence[int] | None = None
    num_labels: int | None = None
    id2label: dict[int, str] | None = None
    label2id: dict[str, int] | None = None
    problem_type: str | None = None
    output_hidden_states: bool = False
    return_dict: bool = True
    conv_embed_stem_padding: int = 2
    extra: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Keys of a `config.json` that are none of ours, kept for writing it back."""

    def __post_init__(self) -> None:
        if isinstance(self.patch_size, Sequence) and len(set(self.patch_size)) == 1:
            self.patch_size = self.patch_size[0]
        for name in ("patch_size", "num_channels", "embed_dim", "encoder_stride"):
            setattr(self, name, as_int(name, getattr(self, name), minimum=1))
        self.conv_embed_stem_padding = as_int("conv_embed_stem_padding", self.conv_embed_stem_padding, minimum=2)
        for name in ("initializer_range", "layerscale_value"):
            setattr(self, name, as_float(name, getattr(self, name)))
        for name in ("mlp_ratio", "layer_norm_eps"):
            setattr(self, name, as_float(name, getattr(self, name), open_low=True))
        if self.mlp_ratio * self.embed_dim < 1:
            raise ValueError(
                f"mlp_ratio must leave the MLPs a width, got {self.mlp_ratio} of embed_dim {self.embed_dim}"
            )
        for name in ("hidden_dropout_prob", "drop_path_rate"):
            setattr(self, name, as_float(name, getattr(self, name), high=1.0))
        for name in (
            "use_conv_embed",
            "use_layerscale",
            "use_post_layernorm",
            "use_post_layernorm_in_modulation",
            "normalize_modulator",
            "output_hidden_states",
            "return_dict",
        ):
            check_switch(name, getattr(self, name))
        if not callable(self.hidden_act) and self.hidden_act not in ACTIVATIONS:
            raise ValueError(f"hidden_act must be one of {ACTIVATIONS} or a callable, got {self.hidden_act!r}")
        if self.problem_type is not None and self.problem_type not in PROBLEM_TYPES:
            raise ValueError(f"problem_type must be None or one of {PROBLEM_TYPES}, got {self.problem_type!r}")
        if self.use_conv_embed and self.patch_size != 4:
            raise ValueError(f"patch_size must be 4 with use_conv_embed (its stem has stride 4), got {self.patch_size}")
        # With any other padding, the 7x7 stem of stride 4 gives no map of a quarter of the image.
        if self.conv_embed_stem_padding > 3:
            raise ValueError(f"conv_embed_stem_padding must be 2 or 3, got {self.conv_embed_stem_padding}")
        self._check_image_size()
        self._check_stages()
        self.out_features, self.out_indices = align_outputs(self.stage_names, self.out_features, self.out_indices)
        self.num_labels, self.id2label, self.label2id = align_labels(self.num_labels, self.id2label, self.label2id)

    @property
    def stage_names(self) -> list[str]:
        """Names of the feature maps there are: `["stem", "stage1", ...]`."""
        return ["stem", *(f"stage{i}" for i in range(1, len(self.depths) + 1))]

    @property
    def stage_channels(self) -> list[int]:
        """Channels of each stage's feature map (before its downsampling)."""
        return [self.embed_dim * 2**i for i in range(len(self.depths))]

    @property
    def stage_strides(self) -> list[int]:
        """Stride of each stage's feature map in pixels."""
        return [self.patch_size * 2**i for i in range(len(self.depths))]

    def replace(self, **changes: Any) -> FocalNetConfig:
        """A checked copy with some knobs changed; what was derived from them is derived again."""
        derived_from = {
            "embed_dim": ["hidden_sizes"],
            "depths": ["hidden_sizes"],
            "out_features": ["out_indices"],
            "out_indices": ["out_features"],
            "num_labels": ["id2label", "label2id"],
            "id2label": ["num_labels", "label2id"],
            "label2id": ["num_labels", "id2label"],
        }
        for name, default in PER_STAGE_DEFAULTS.items():
            if set(getattr(self, name)) == {default}:
                derived_from["depths"].append(name)
        if changes.get("num_labels") == self.num_labels:
            derived_from.pop("num_labels")
        if self.out_indices == [len(self.depths)]:
            derived_from["depths"] += ["out_features", "out_indices"]
        knobs = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        for name in changes:
            knobs.update(dict.fromkeys(derived_from.get(name, []), None))
        copy = type(self)(**{**knobs, **changes})
        copy.extra = dict(self.extra)
        return copy

    @classmethod
    def from_variant(cls, name: str, **overrides: Any) -> FocalNetConfig:
        """The config of a published model, for example `"focalnet_tiny_srf"`, with some knobs changed.

        Raises `KeyError` with the closest names if there is no such model.
        """
        variant = get_variant(name)
        config = cls(**variant.knobs, num_labels=variant.num_classes, image_size=variant.pretrained_size)
        return config.replace(**overrides) if overrides else config

    @classmethod
    def from_dict(cls, values: dict[str, Any], **overrides: Any) -> FocalNetConfig:
        """Read the contents of a transformers `config.json`, keeping in `extra` what is not ours.

        `hidden_sizes` of such a file is not trusted: published ones hold the default whatever the width.
        """
        names = {f.name for f in fields(cls) if f.init}
        knobs = {k: v for k, v in values.items() if k in names and k != "hidden_sizes" and v is not None}
        if knobs.get("out_features") is not None:
            knobs.pop("out_indices", None)
        if "id2label" in knobs:
            knobs.pop("num_labels", None)
        config = cls(**knobs)
        config.extra = {k: v for k, v in values.items() if k not in names and k not in ("stage_names", "model_type")}
        return config.replace(**overrides) if overrides else config

    @classmethod
    def from_pretrained(cls, path: str | Path, **overrides: Any) -> FocalNetConfig:
        """Read a `config.json`, given its path or the folder that it lies in.

        Raises `FileNotFoundError` if there is none and `ValueError` if it is no JSON object of a FocalNet.
        """
        path = Path(path)
        if path.is_dir():
            path = path / CONFIG_FILE
        if not path.is_file():
            raise FileNotFoundError(f"no FocalNet config at {path}")
        values = read_json(path)
        if not isinstance(values, dict) or values.get("model_type", cls.model_type) != cls.model_type:
            found = values.get("model_type") if isinstance(values, dict) else type(values).__name__
            raise ValueError(f"{path} is not the config of a FocalNet, but of {found!r}")
        return cls.from_dict(values, **overrides)

    def to_dict(self) -> dict[str, Any]:
        """All knobs, with the unknown keys that were read, as transformers' `config.json` has them."""
        knobs = {f.name: getattr(self, f.name) for f in fields(self) if f.init and f.name != "num_labels"}
        knobs = {k: list(v) if isinstance(v, tuple) else v for k, v in knobs.items()}
        return {**self.extra, **knobs, "model_type": self.model_type, "stage_names": self.stage_names}

    def to_json_string(self) -> str:
        """`to_dict` as JSON. Raises `TypeError` if `hidden_act` is a callable, which JSON cannot hold."""
        if callable(self.hidden_act):
            raise TypeError(f"hidden_act is the callable {self.hidden_act!r}; only named activations can be saved")
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write `config.json` into a folder (made if need be) and return the file's path."""
        text = self.to_json_string()
        path = Path(folder) / CONFIG_FILE
        with whole_file(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
        return path

    def _check_image_size(self) -> None:
        size = self.image_size
        sides = list(size) if isinstance(size, Iterable) and not isinstance(size, str) else [size]
        if len(sides) > 2 or not all(map(is_int, sides)):
            raise TypeError(f"image_size must be an int or (height, width), got {size!r}")
        if not sides or min(sides) < 1:
            raise ValueError(f"image_size must be at least 1, got {size!r}")
        self.image_size = (int(sides[0]), int(sides[1])) if len(sides) == 2 else int(sides[0])

    def _check_stages(self) -> None:
        self.depths = as_ints("depths", self.depths, 1, MOST["depths"])
        stages = len(self.depths)
        if stages == 0:
            raise ValueError("depths must have at least one stage, got []")
        for name, default in PER_STAGE_DEFAULTS.items():
            value = getattr(self, name)
            value = [default] * stages if value is None else as_ints(name, value, 1, MOST[name])
            if len(value) != stages:
                raise ValueError(f"{name} must have one entry a stage ({stages}, as depths has), got {value}")
            setattr(self, name, value)
        if any(window % 2 == 0 for window in self.focal_windows):
            raise ValueError(f"every entry of focal_windows must be odd, got {self.focal_windows}")
        derived = [self.embed_dim * 2 ** min(i + 1, stages - 1) for i in range(stages)]
        if self.hidden_sizes is not None and as_ints("hidden_sizes", self.hidden_sizes, 1) != derived:
            raise ValueError(
                f"hidden_sizes must be {derived} for embed_dim={self.embed_dim} and {stages} stages (or be left "
                f"out), got {list(self.hidden_sizes)}"
            )
        self.hidden_sizes = derived
