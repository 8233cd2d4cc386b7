"""Images of any kind to RGB, as a viewer shows them, and to what the network takes."""

from __future__ import annotations

import errno
import functools
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from focalnet_backbone.system.files import UNFINISHED
from focalnet_backbone.system.inputs import check_file

logger = logging.getLogger(__name__)

ImageLike: TypeAlias = "str | Path | Image.Image | np.ndarray | Tensor"

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PHOTO_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of what is opened as an image, whatever a file's name says; for others, Pillow starts programs."""
IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})

_OF_SYSTEMS = frozenset({"#recycle", "$RECYCLE.BIN", "@Recycle", "@eaDir", "System Volume Information", "__MACOSX"})
"""Folders that systems make among a user's: what was thrown away, previews, and attributes."""

_SIXTEEN_BIT_FORMATS = ("PNG", "PPM")
"""Formats whose 16 bits Pillow may give as integers of 32."""

# What brings an image upright, by its EXIF orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is none that its user put there as data, such as `.thumbs`, `@eaDir`."""
    return name.startswith(".") or name in _OF_SYSTEMS


def find_images(
    folder: str | Path, on_error: Callable[[Path, OSError], None] | None = None, *, hidden: bool = True
) -> list[Path]:
    """Image files below a folder, by their suffix, sorted.

    Links are followed, also those to folders. Whatever has an image's name is among them, such as a link that leads
    nowhere, so that who reads it will say what is wrong with it; but nothing that a killed program left unfinished.

    Args:
        folder: where to look, with its subfolders.
        on_error: called with a folder and the error for which it could not be searched; None raises the error. A link
            back to a folder that it lies in is such an error, but raised for None only in the log.
        hidden: whether to look at files and folders that are hidden (see `is_hidden`), too; `folder` itself may be.

    Raises:
        FileNotFoundError: there is no such folder.
        OSError: a folder cannot be searched.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    return sorted(_search(folder, on_error, hidden, ()), key=lambda path: path.parts)  # Paths compare slowly.


def _search(
    folder: Path, on_error: Callable[[Path, OSError], None] | None, hidden: bool, above: tuple
) -> Iterator[Path]:
    try:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            error = OSError(errno.ELOOP, "a link back to a folder that it lies in, not searched again", str(folder))
            if on_error is None:
                logger.warning("%s: %s", folder, error.strerror)
            else:
                on_error(folder, error)
            return
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(UNFINISHED)]
            found = [folder / name for name in names if hidden or not is_hidden(name)]
    except OSError as error:
        if on_error is None:
            raise
        on_error(folder, error)
        return
    for path in found:
        if os.path.isdir(path):
            yield from _search(path, on_error, hidden, (*above, here))
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            yield path


def load_image(path: str | Path) -> Tensor:
    """Read an image file as RGB, uint8 `(3, H, W)`.

    The EXIF orientation is applied, transparency is laid over white, 16 bits are scaled to 8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no image, or a broken one, or holds numbers whose range is unknown.
    """
    path = Path(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path} is a link to nothing" if path.is_symlink() else f"no image file {path}")
    if not path.is_file():  # Which may wait for what never comes.
        raise ValueError(f"{path} is no file that could be read as an image")
    return _open(path, path)


def decode_image(content: bytes, name: str = "it") -> Tensor:
    """An image file's content as RGB, uint8 `(3, H, W)`, as `load_image` reads files.

    Raises `ValueError`, in which the image is called `name`.
    """
    if not content:
        raise ValueError(f"cannot read {name} as an image: it is empty")
    return _open(io.BytesIO(content), name)


def _open(file: Path | io.BytesIO, name: object) -> Tensor:
    try:
        with warnings.catch_warnings():
            # Images beyond twice the size of this warning are refused.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with open_image(file) as image:
                return _pil_to_rgb(image)
    except Exception as error:  # on damaged files, Pillow's readers pass on whatever they meet
        # Of content without a file, Pillow tells the address in memory.
        unknown = isinstance(error, UnidentifiedImageError) and isinstance(file, io.BytesIO)
        reason = f"it is none of {', '.join(PHOTO_FORMATS)}" if unknown else error
        raise ValueError(f"cannot read {name} as an image: {reason}") from error


def open_image(file: str | Path | BinaryIO) -> Image.Image:
    """Pillow's `Image.open` for a file of one of `PHOTO_FORMATS`, whatever its name says.

    Raises `OSError`, of which Pillow's `UnidentifiedImageError` is one, if it is no such file.
    """
    if isinstance(file, str | Path):
        check_file(file)
    return Image.open(file, formats=photo_formats())  # noqa: TID251


def check_photo(path: str | Path) -> None:
    """Raise `ValueError` if a file is of none of `PHOTO_FORMATS`, by its first bytes, for those who let others open it.

    Raises `OSError` if it cannot be read.
    """
    with open(path, "rb") as file:
        start = file.read(16)
    readers = [Image.OPEN[kind][1] for kind in photo_formats()]
    if not any(accepts is not None and accepts(start) for accepts in readers):
        raise ValueError(f"{path} is no photo: what is in it is none of {', '.join(PHOTO_FORMATS)}")


@functools.cache
def photo_formats() -> tuple[str, ...]:
    """For Pillow's `open`: those of `PHOTO_FORMATS` that this Pillow reads."""
    Image.init()
    return tuple(kind for kind in PHOTO_FORMATS if kind in Image.OPEN)


def to_rgb(image: ImageLike) -> Tensor:
    """Turn whatever a user may hold into an RGB tensor, uint8 `(3, H, W)`; a float tensor stays float in 0 to 1.

    Args:
        image: a path; a PIL image; a numpy array, uint8 `(H, W, 3)`; or a tensor `(3, H, W)`, uint8 or floats in
            0 to 1.

    Raises:
        TypeError, ValueError, FileNotFoundError: it is none of these; the message says what it is.
    """
    if isinstance(image, (str, Path)):
        return load_image(image)
    if isinstance(image, Image.Image):
        return _pil_to_rgb(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            raise TypeError(f"expected a numpy image of uint8, got {image.dtype}")
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"expected a numpy image (H, W, 3), got shape {image.shape}")
        return _check_not_empty(torch.from_numpy(np.require(image, requirements="CW")).permute(2, 0, 1))
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(f"expected an image tensor (3, H, W), got shape {tuple(image.shape)}")
        if image.dtype != torch.uint8 and not image.is_floating_point():
            raise TypeError(f"expected an image tensor of uint8 or floats in 0 to 1, got {image.dtype}")
        _check_not_empty(image)
        if image.is_floating_point() and not (image.min() >= 0 and image.max() <= 1):
            raise ValueError(
                f"expected a float image in 0 to 1, got values from {image.min():.4g} to {image.max():.4g}"
            )
        return image
    raise TypeError(f"expected a path, PIL image, numpy array or tensor, got {type(image).__name__}")


def decode_unusual(content: bytes) -> np.ndarray | None:
    """An image file's content as RGB, uint8 `(H, W, 3)`, if it is of a kind that image readers take differently.

    These are all but 8-bit grey and RGB: deeper ones, and those with transparency, a palette or inks. None for those,
    and for what is no image that Pillow knows, which are left to the caller's own reader.

    Raises `ValueError` for one whose range is unknown.
    """
    try:
        image = open_image(io.BytesIO(content))
    except (OSError, ValueError, SyntaxError):
        return None
    with image:
        if image.mode in ("L", "RGB") and not image.has_transparency_data:
            return None
        return _pil_to_rgb(image).permute(1, 2, 0).numpy()


def limit_size(image: Tensor, max_size: int | None) -> Tensor:
    """Shrink `(3, H, W)` so that its longer side is at most `max_size` pixels, keeping its proportions."""
    height, width = image.shape[-2:]
    if max_size is None or max(height, width) <= max_size:
        return image
    scale = max_size / max(height, width)
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    return TF.resize(image, size, antialias=True)


def normalize(images: Tensor, dtype: torch.dtype) -> Tensor:
    """RGB images `(..., 3, H, W)`, uint8 or floats in 0 to 1, to the ImageNet-normalised input of the network."""
    images = images.to(dtype) / 255 if images.dtype == torch.uint8 else images.to(dtype)
    # Not by torchvision's function, which waits for a GPU to tell whether a deviation is zero.
    mean, std = (_per_channel(values, images) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean).div_(std)


def _per_channel(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype).view(-1, 1, 1).to(like.device, non_blocking=True)


def stack_images(images: Sequence[Tensor], device: torch.device) -> Tensor:
    """A batch `(N, 3, H, W)` of images of one size and type, on its way to a device.

    For a GPU it is in memory that the GPU reads by itself, while this program goes on.
    """
    if device.type != "cuda" or any(image.is_cuda for image in images):
        return torch.stack(list(images))
    first = images[0]
    batch = torch.empty(len(images), *first.shape, dtype=first.dtype, pin_memory=True)
    return torch.stack(list(images), out=batch)


def to_uint8(image: Tensor) -> Tensor:
    """An RGB image `(3, H, W)`, uint8 or floats in 0 to 1, as uint8."""
    return image if image.dtype == torch.uint8 else (image * 255).round().to(torch.uint8)


def group_by_size(images: Iterable[Tensor]) -> list[list[int]]:
    """Indices of the images `(3, H, W)`, one list for each size and type."""
    groups: dict[tuple, list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault((image.shape, image.dtype), []).append(index)
    return list(groups.values())


def _pil_to_rgb(image: Image.Image) -> Tensor:
    if image.mode == "F" or (image.mode == "I" and image.format not in _SIXTEEN_BIT_FORMATS):
        kind = {"F": "floating-point values", "I": "32-bit integers"}[image.mode]
        raise ValueError(f"it holds {kind}, whose range is unknown; convert it to 8 or 16 bits")
    image.load()
    # Not by Pillow's `exif_transpose`, which also writes all of EXIF anew, and fails on the ill-formed rest of it.
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    if image.mode.startswith("I"):
        grey = np.asarray(image).clip(0, 65535).astype(np.float64) / 257
        image = Image.fromarray(grey.round().astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return _check_not_empty(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1))


def _check_not_empty(image: Tensor) -> Tensor:
    if image.numel() == 0:
        raise ValueError(f"expected an image of at least 1x1 pixels, got {image.shape[-2]}x{image.shape[-1]}")
    return image
