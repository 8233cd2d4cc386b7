"""A sample dataset for machines that have none: drawn objects on photographs, in COCO's and ADE20K's formats.

Backgrounds are scikit-image's photographs with a strip of ground (grass, gravel or brick) below. The validation
split has other photographs, and other parts of the ground textures, than the training split.
"""

from __future__ import annotations

import colorsys
import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from focalnet_backbone.system.files import whole_folder

THINGS = ("ball", "tile", "cone", "star")
STUFF = ("photograph", "grass", "gravel", "brick")
CATEGORIES = [{"id": i, "name": name, "isthing": int(name in THINGS)} for i, name in enumerate(THINGS + STUFF, start=1)]
"""COCO's category ids are also the pixel values of the semantic annotations, where 0 stands for no class."""

PHOTOGRAPHS = {
    "training": ("astronaut", "chelsea", "stereo_motorcycle", "hubble_deep_field"),
    "validation": ("coffee", "rocket"),
}
MIN_VISIBLE = 0.4
"""An object is left out if it would leave less than this part of another one in sight."""


@dataclass
class Instance:
    """An object of a scene: its class and its visible pixels, `(size, size)` bool."""

    name: str
    mask: np.ndarray


def make_sample_dataset(root: str | Path, train: int = 400, val: int = 100, size: int = 256, seed: int = 0) -> Path:
    """Write the dataset. The same arguments give the same files, and image i does not depend on how many there are.

    Layout of `root`, with `SPLIT` one of training and validation:

        images/SPLIT/00001.jpg              the image
        annotations/SPLIT/00001.png         class of each pixel (ADE20K's format: 0 is none, 1 the first class)
        coco/instances_SPLIT.json           objects as polygons (COCO's detection format)
        coco/panoptic_SPLIT.json            segments of objects and stuff (COCO's panoptic format), with
        coco/panoptic_SPLIT/00001.png       their ids as colours

    Args:
        root: folder to make; there must be nothing at that path yet. It appears when it is complete.
        train: number of training images.
        val: number of validation images.
        size: height and width of the images in pixels.
        seed: seed of the drawing.

    Raises:
        FileExistsError: there is something at `root`.
        ValueError: a number of images is below 1, or `size` below 64.
    """
    root = Path(root)
    if os.path.lexists(root):
        raise FileExistsError(f"{root} exists already; delete it or name another folder")
    if min(train, val) < 1:
        raise ValueError(f"train and val must be at least 1, got {train} and {val}")
    if size < 64:
        raise ValueError(f"size must be at least 64, got {size}")
    with whole_folder(root) as unfinished:
        _write_split(unfinished, "training", train, size, seed)
        _write_split(unfinished, "validation", val, size, seed)
    return root


def draw_scene(split: str, index: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[Instance]]:
    """Draw one image.

    Returns:
        The image `(size, size, 3)` uint8, the category of the background of each pixel `(size, size)` uint8, and
        the objects, which hide it.
    """
    rng = np.random.default_rng([seed, list(PHOTOGRAPHS).index(split), index])
    image, background = _draw_background(rng, split, size)
    instances: list[Instance] = []
    for _ in range(rng.integers(3, 8)):
        name = str(rng.choice(THINGS))
        shape, u, v = _place(rng, name, size)
        hidden = [other.mask for other in instances if (other.mask & shape).any()]
        if not shape.any() or not all(_stays_visible(mask, shape) for mask in hidden):
            continue
        for other in instances:
            other.mask &= ~shape
        instances.append(Instance(name, shape))
        image[shape] = _paint(rng, name, u[shape], v[shape])
    noise = rng.normal(0.0, 6.0, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), background, instances


def _draw_background(rng: np.random.Generator, split: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    image = _random_crop(rng, _load(str(rng.choice(PHOTOGRAPHS[split]))), size)
    background = np.full((size, size), _category_id("photograph"), np.uint8)

    ground = str(rng.choice(STUFF[1:]))
    texture = _load(ground)
    middle = texture.shape[1] // 2
    texture = texture[:, :middle] if split == "training" else texture[:, middle:]
    tint = _random_colour(rng, saturation=(0.1, 0.5), value=(0.8, 1.0)) / 255
    left, right = rng.uniform(0.55, 0.9, 2) * size
    below = np.arange(size)[:, None] >= np.linspace(left, right, size)[None]
    image[below] = (_random_crop(rng, texture, size) * tint)[below]
    background[below] = _category_id(ground)
    return image, background


def _place(rng: np.random.Generator, name: str, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A random place, size and rotation: the pixels of the object, and the coordinates in its own frame.

    In its frame the object reaches from about -1 to 1.
    """
    radius = size * np.exp(rng.uniform(np.log(0.07), np.log(0.25)))
    x, y = rng.uniform(0.05, 0.95, 2) * size
    angle = rng.uniform(0, 2 * np.pi)
    aspect = rng.uniform(0.75, 1.0)
    rows, columns = np.mgrid[:size, :size] + 0.5
    du, dv = (columns - x) / radius, (rows - y) / radius
    u = np.cos(angle) * du + np.sin(angle) * dv
    v = (np.cos(angle) * dv - np.sin(angle) * du) / aspect
    return _inside(name, u, v), u, v


def _inside(name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Whether points in an object's frame belong to it."""
    if name == "ball":
        return u**2 + v**2 < 1
    if name == "tile":
        return np.maximum(abs(u), abs(v)) < 0.85
    if name == "cone":
        return (v < 0.8) & (2.2 * abs(u) < v + 1.2)
    # A star of five rays: its outline runs straight between tips at radius 1.15 and notches at radius 0.5.
    sector = np.pi / 5
    angle = abs((np.arctan2(v, u) + sector) % (2 * sector) - sector)
    tip, notch = 1.15, 0.5
    outline = tip * notch * np.sin(sector) / (notch * np.sin(sector - angle) + tip * np.sin(angle))
    return np.hypot(u, v) < outline


def _paint(rng: np.random.Generator, name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The colours `(P, 3)` of an object's P pixels: a pattern, mostly its class's own, of two, shaded to one side."""
    patterns = {
        "ball": lambda a: np.hypot((a * u) % 1 - 0.5, (a * v) % 1 - 0.5) < 0.3,
        "tile": lambda a: (a * u) % 1 < 0.5,
        "cone": lambda a: (a * v) % 1 < 0.3,
        "star": lambda a: ((a * u) % 1 < 0.5) ^ ((a * v) % 1 < 0.5),
    }
    if rng.random() < 0.2:
        name = str(rng.choice(THINGS))
    pattern = patterns[name](rng.uniform(1.8, 3.0))
    bright = _random_colour(rng, saturation=(0.3, 0.9), value=(0.75, 1.0))
    dark = _random_colour(rng, saturation=(0.3, 1.0), value=(0.1, 0.45))
    light = 1 + rng.uniform(-0.25, 0.25) * u + rng.uniform(-0.25, 0.25) * v
    return np.where(pattern[..., None], bright, dark) * light[..., None]


def _stays_visible(mask: np.ndarray, cover: np.ndarray) -> bool:
    """Whether enough of a visible mask is left under a cover, without a hole (which a polygon cannot show)."""
    from scipy.ndimage import binary_fill_holes

    left = mask & ~cover
    return left.sum() >= MIN_VISIBLE * mask.sum() and np.array_equal(left, binary_fill_holes(left))


def _random_crop(rng: np.random.Generator, image: np.ndarray, size: int) -> np.ndarray:
    """A square of a random side from 0.4 of the short side, flipped at random and resized: float `(size, size, 3)`."""
    height, width = image.shape[:2]
    side = int(rng.uniform(0.4, 1.0) * min(height, width))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    crop = image[top : top + side, left : left + side]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    crop = Image.fromarray(np.ascontiguousarray(crop)).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(crop, np.float64) * rng.uniform(0.6, 1.1)


def _random_colour(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> np.ndarray:
    return 255 * np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value)))


@functools.cache
def _load(name: str) -> np.ndarray:
    """An image of scikit-image's as `(H, W, 3)` uint8."""
    from skimage import color, data

    image = getattr(data, name)()
    if isinstance(image, tuple):  # A stereo pair and its disparity.
        image = image[0]
    return image if image.ndim == 3 else color.gray2rgb(image)


def _category_id(name: str) -> int:
    return (THINGS + STUFF).index(name) + 1


def _write_split(root: Path, split: str, count: int, size: int, seed: int) -> None:
    folders = {name: root / name / split for name in ("images", "annotations")}
    folders["panoptic"] = root / "coco" / f"panoptic_{split}"
    for folder in folders.values():
        folder.mkdir(parents=True)
    images, objects, panoptic = [], [], []
    for index in tqdm(range(1, count + 1), desc=split):
        image, background, instances = draw_scene(split, index, size, seed)
        semantic, segments = background.copy(), np.zeros((size, size), np.int32)
        for number, instance in enumerate(instances, start=1):
            semantic[instance.mask] = _category_id(instance.name)
            segments[instance.mask] = number
            annotation = _describe(instance.mask, _category_id(instance.name))
            polygons = _polygons(instance.mask)
            objects.append({"id": len(objects) + 1, "image_id": index, "segmentation": polygons, **annotation})
        for category in np.unique(background[segments == 0]):
            segments[(segments == 0) & (background == category)] = len(instances) + category
        Image.fromarray(image).save(folders["images"] / f"{index:05d}.jpg", quality=95)
        Image.fromarray(semantic).save(folders["annotations"] / f"{index:05d}.png")
        colours = np.stack([segments, segments >> 8, segments >> 16], axis=-1) & 255
        Image.fromarray(colours.astype(np.uint8)).save(folders["panoptic"] / f"{index:05d}.png")
        images.append({"id": index, "file_name": f"{index:05d}.jpg", "height": size, "width": size})
        panoptic.append(
            {"image_id": index, "file_name": f"{index:05d}.png", "segments_info": _segments_info(segments, semantic)}
        )
    things = [category for category in CATEGORIES if category["isthing"]]
    _write_json(root / "coco" / f"instances_{split}.json", images, objects, things)
    _write_json(root / "coco" / f"panoptic_{split}.json", images, panoptic, CATEGORIES)


def _write_json(path: Path, images: list, annotations: list, categories: list) -> None:
    content = {
        "info": {"description": "focalnet-backbone sample dataset"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    path.write_text(json.dumps(content), encoding="utf-8")


def _segments_info(segments: np.ndarray, semantic: np.ndarray) -> list[dict[str, Any]]:
    info = []
    for segment in np.unique(segments):
        mask = segments == segment
        info.append({"id": int(segment), **_describe(mask, int(semantic[mask][0]))})
    return info


def _describe(mask: np.ndarray, category: int) -> dict[str, Any]:
    """COCO's fields of a segment; the box is `[left, top, width, height]` in pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    box = [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]
    return {"category_id": category, "iscrowd": 0, "area": int(mask.sum()), "bbox": box}


def _polygons(mask: np.ndarray) -> list[list[float]]:
    """Outlines of a mask as `[x0, y0, x1, y1, ...]` in pixels, where (0, 0) is the corner of the first pixel."""
    from skimage.measure import find_contours

    contours = find_contours(np.pad(mask, 1).astype(float), 0.5)
    return [(contour[:-1, ::-1] - 0.5).ravel().tolist() for contour in contours]
