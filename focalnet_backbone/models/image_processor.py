"""Photographs in, normalised batches out, as transformers' image processor for FocalNet makes them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tvF

from focalnet_backbone.features.images import IMAGENET_MEAN, IMAGENET_STD
from focalnet_backbone.models.pretrained import find_file, read_config
from focalnet_backbone.network.variants import Variant, find_variant
from focalnet_backbone.system.files import whole_file
from focalnet_backbone.system.inputs import read_json

PREPROCESSOR_FILE = "preprocessor_config.json"
BILINEAR, BICUBIC = int(Image.Resampling.BILINEAR), int(Image.Resampling.BICUBIC)
# Pillow's number of an interpolation to torchvision's name of it.
INTERPOLATIONS = {
    int(Image.Resampling.NEAREST): InterpolationMode.NEAREST_EXACT,
    BILINEAR: InterpolationMode.BILINEAR,
    BICUBIC: InterpolationMode.BICUBIC,
}

# The transformers class that published FocalNet checkpoints name, and what it assumes where a file is silent.
PROCESSOR_TYPES = ("BitImageProcessor", "BitImageProcessorFast", "BitImageProcessorPil", "BitFeatureExtractor")
PROCESSOR_DEFAULTS = {
    "size": 224,
    "resample": BICUBIC,
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
}


class ImageBatch(dict):
    """`{"pixel_values": ...}`, whose entries are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no {name!r} in this batch, only {list(self)}") from None

    def to(self, *args: Any, **kwargs: Any) -> ImageBatch:
        """A batch whose tensors went through `Tensor.to` with these arguments."""
        return ImageBatch({name: x.to(*args, **kwargs) for name, x in self.items()})


@dataclass
class FocalNetImageProcessor:
    """Resize, crop the centre, rescale and normalise images; the defaults are those of `microsoft/focalnet-tiny`.

    Args:
        do_resize: whether to resize.
        size: to what: an int or {"shortest_edge": pixels} keeps the shape, {"height": ..., "width": ...} does not.
        resample: Pillow's number of the interpolation: 0 nearest, 2 bilinear, 3 bicubic.
        do_center_crop: whether to cut out the centre; smaller images are padded with black.
        crop_size: to what size: an int or {"height": ..., "width": ...}.
        do_rescale: whether to multiply...
        rescale_factor: ...by this factor.
        do_normalize: whether to subtract...
        image_mean: ...this mean, one a channel, and divide...
        image_std: ...by this standard deviation.
        do_convert_rgb: whether to make RGB of greyscale, palette and transparent images (on white).

    Raises:
        TypeError, ValueError: a knob is wrong; the message names it and what is allowed.
    """

    do_resize: bool = True
    size: int | Mapping[str, int] = 256
    resample: int = BILINEAR
    do_center_crop: bool = True
    crop_size: int | Mapping[str, int] = 224
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: Sequence[float] = IMAGENET_MEAN
    image_std: Sequence[float] = IMAGENET_STD
    do_convert_rgb: bool = True

    def __post_init__(self) -> None:
        self.size = _check_size("size", self.size, "shortest_edge")
        self.crop_size = _check_size("crop_size", self.crop_size)
        if self.resample not in INTERPOLATIONS:
            raise ValueError(f"resample must be 0 (nearest), 2 (bilinear) or 3 (bicubic), got {self.resample!r}")
        self.resample = int(self.resample)
        for name in ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if not isinstance(self.rescale_factor, Real):
            raise TypeError(f"rescale_factor must be a number, got {self.rescale_factor!r}")
        for name in ("image_mean", "image_std"):
            values = getattr(self, name)
            if not isinstance(values, Iterable) or not all(isinstance(value, Real) for value in values):
                raise TypeError(f"{name} must be a list of numbers, one a channel, got {values!r}")
        self.image_mean, self.image_std = list(self.image_mean), list(self.image_std)
        if len(self.image_mean) != len(self.image_std):
            raise ValueError(f"image_mean {self.image_mean} and image_std {self.image_std} differ in length")
        if not all(std > 0 for std in self.image_std):
            raise ValueError(f"image_std must be above 0, got {self.image_std}")

    @classmethod
    def for_image_size(cls, size: int | Sequence[int], **knobs: Any) -> FocalNetImageProcessor:
        """The published preset in proportion, for images of another size: an int or (height, width) in pixels.

        The shortest edge becomes 8/7 of the crop's longest one, as 256 is of 224.
        """
        height, width = (size, size) if isinstance(size, Integral) else size
        return cls(size=max(height, width) * 8 // 7, crop_size={"height": height, "width": width}, **knobs)

    @classmethod
    def from_pretrained(cls, source: str | Path, **overrides: Any) -> FocalNetImageProcessor:
        """The processor that belongs to a checkpoint, with some knobs changed.

        Args:
            source: a variant's name, or a folder or hub id with `preprocessor_config.json`. Where there is none, the
                published preset is taken for the `image_size` of `config.json`.
            **overrides: knobs to change.

        Raises:
            FileNotFoundError: there is no such folder, or none of the two files in it.
            ValueError: the file is not the one of an image processor for FocalNet.
            CheckpointError: the hub has no such repository, or cannot be reached.
        """
        variant = find_variant(source)
        if variant is not None:
            return cls.for_variant(variant, **overrides)
        path = find_file(source, PREPROCESSOR_FILE)
        if path is None:
            return replace(cls.for_image_size(read_config(source).image_size), **overrides)
        values = read_json(path)
        if not isinstance(values, dict):
            raise ValueError(f"{path} is not an image processor's, it holds a {type(values).__name__}")
        kind = values.get("image_processor_type", values.get("feature_extractor_type", PROCESSOR_TYPES[0]))
        if kind not in PROCESSOR_TYPES:
            raise ValueError(f"{path} is for {kind!r}, but FocalNet's processors are {', '.join(PROCESSOR_TYPES)}")
        known = {field.name for field in fields(cls)}
        knobs = {name: value for name, value in values.items() if name in known and value is not None}
        return cls(**{**PROCESSOR_DEFAULTS, **knobs, **overrides})

    @classmethod
    def for_variant(cls, variant: Variant, **overrides: Any) -> FocalNetImageProcessor:
        """The preset of a published model: transformers' for ImageNet-1k, timm's for ImageNet-22k."""
        if variant.pretrained_on == "imagenet-1k":
            return replace(cls.for_image_size(variant.pretrained_size), **overrides)
        pixels = variant.pretrained_size
        shortest_edge = int(pixels / 0.9) if pixels == 224 else pixels
        return replace(cls(size=shortest_edge, crop_size=pixels, resample=BICUBIC), **overrides)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write `preprocessor_config.json`, which transformers opens too, and return its path."""
        path = Path(folder) / PREPROCESSOR_FILE
        values = {**asdict(self), "image_processor_type": PROCESSOR_TYPES[0]}
        with whole_file(path) as unfinished:
            unfinished.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return path

    def __call__(self, images: Any, return_tensors: str | None = None, **overrides: Any) -> ImageBatch:
        """Make a batch of images of any sizes.

        Args:
            images: a Pillow image, an array or tensor `(H, W)`, `(H, W, C)` or `(C, H, W)` with values from 0 to 255,
                a list of these, or an array or tensor of them.
            return_tensors: "pt" for a tensor `(N, C, H, W)`, "np" for an array, None for a list of `(C, H, W)`.
            **overrides: knobs to change for this call.

        Raises:
            TypeError, ValueError: something is no image, or the images do not fit the knobs or each other.
        """
        if overrides:
            return replace(self, **overrides)(images, return_tensors)
        if return_tensors not in (None, "pt", "np"):
            raise ValueError(f'return_tensors must be "pt", "np" or None, got {return_tensors!r}')
        is_batch = isinstance(images, (list, tuple)) or getattr(images, "ndim", 0) == 4
        pixel_values = [self._process(image) for image in (images if is_batch else [images])]
        if not pixel_values:
            raise ValueError("images is empty")
        if return_tensors is None:
            return ImageBatch(pixel_values=pixel_values)
        if len({x.shape for x in pixel_values}) > 1:
            shapes = sorted({tuple(x.shape) for x in pixel_values})
            raise ValueError(f"images of shapes {shapes} make no batch; crop them (do_center_crop) to one size")
        batch = torch.stack(pixel_values)
        return ImageBatch(pixel_values=batch if return_tensors == "pt" else batch.numpy())

    def _process(self, image: Any) -> Tensor:
        """Map one image to `(C, H, W)`."""
        x = _to_tensor(image, self.do_convert_rgb)
        if x.numel() == 0:
            raise ValueError(f"an image must have at least 1x1 pixels, got {x.shape[1]}x{x.shape[2]}")
        if self.do_resize:
            edge = self.size.get("shortest_edge")
            size = [edge] if edge else [self.size["height"], self.size["width"]]
            x = tvF.resize(x, size, interpolation=INTERPOLATIONS[self.resample], antialias=True)
        if self.do_center_crop:
            x = _center_crop(x, self.crop_size["height"], self.crop_size["width"])
        if self.do_rescale:
            if x.is_floating_point() and x.max() <= 1:
                warnings.warn(
                    "an image with values up to 1 is rescaled; pass do_rescale=False if it is already", stacklevel=3
                )
            x = x * self.rescale_factor
        if self.do_normalize:
            if len(self.image_mean) != x.shape[0]:
                raise ValueError(f"image_mean {self.image_mean} does not fit an image of {x.shape[0]} channels")
            x = tvF.normalize(x.float(), self.image_mean, self.image_std)
        return x


def _check_size(name: str, value: Any, edge: str | None = None) -> dict[str, int]:
    """Bring a size into the form of transformers: `{edge: n}` or `{"height": n, "width": n}`."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        value = {edge: value} if edge else {"height": value, "width": value}
    allowed = ([{edge}] if edge else []) + [{"height", "width"}]
    if not isinstance(value, Mapping) or set(value) not in allowed:
        raise ValueError(f"{name} must be an int or have the keys {' or '.join(map(str, allowed))}, got {value!r}")
    if not all(isinstance(pixels, Integral) and pixels > 0 for pixels in value.values()):
        raise ValueError(f"{name} must be in whole pixels above 0, got {value!r}")
    return dict(value)


def _center_crop(x: Tensor, height: int, width: int) -> Tensor:
    """Cut out the centre of `(C, H, W)`, padding what is smaller; odd margins are larger on the right and bottom.

    torchvision's own function rounds odd margins to even numbers, transformers always down.
    """
    missing_y, missing_x = max(height - x.shape[1], 0), max(width - x.shape[2], 0)
    x = tvF.pad(x, [missing_x // 2, missing_y // 2, (missing_x + 1) // 2, (missing_y + 1) // 2])
    return tvF.crop(x, (x.shape[1] - height) // 2, (x.shape[2] - width) // 2, height, width)


def _to_tensor(image: Any, convert_rgb: bool) -> Tensor:
    """Bring an image into a tensor `(C, H, W)` of its own type."""
    if isinstance(image, Image.Image):
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"images must have 8 bits a channel, got Pillow mode {image.mode!r}")
        x = torch.from_numpy(np.array(_on_white(image) if convert_rgb else image))
        return x[None] if x.ndim == 2 else x.permute(2, 0, 1)
    if not isinstance(image, (np.ndarray, Tensor)):
        raise TypeError(f"an image must be a Pillow image, an array or a tensor, got {type(image).__name__}")
    # A copy of an array: a flipped or read-only one is nothing that torch can look into.
    x = torch.from_numpy(image.copy()) if isinstance(image, np.ndarray) else image
    if x.ndim == 2:
        x = x[None]
    if x.ndim != 3 or not {x.shape[0], x.shape[2]} & {1, 3, 4}:
        raise ValueError(
            f"an image must be (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels, got {tuple(x.shape)}"
        )
    if x.shape[0] not in (1, 3, 4):
        x = x.permute(2, 0, 1)
    if convert_rgb and x.shape[0] == 4:
        if x.dtype != torch.uint8:
            raise ValueError(f"an image with an alpha channel must be of 8-bit integers, got {x.dtype}")
        return _to_tensor(Image.fromarray(x.permute(1, 2, 0).contiguous().numpy()), convert_rgb)
    return x.expand(3, -1, -1) if convert_rgb and x.shape[0] == 1 else x


def _on_white(image: Image.Image) -> Image.Image:
    """The image in RGB, on a white ground if it is transparent."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
