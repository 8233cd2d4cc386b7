"""Datasets that a job's config describes itself: COCO files, and label images that are renumbered as they are read."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler
from PIL import ExifTags, Image

from focalnet_backbone.detectron2.datasets import CocoDataset, register
from focalnet_backbone.features.images import open_image
from focalnet_backbone.own_data import UNLABELLED, find_suffixes, own_images, palette

SCHEME = "labels://"
LYING = (5, 6, 7, 8)
"""EXIF orientations of photos that are turned by a quarter."""


class _LabelReader(PathHandler):
    """Opens `labels://IGNORED/PATH` as an image of one channel, with the classes numbered 0, 1, 2, ...

    detectron2 opens every label by its path, in whatever mapper or evaluator, so that this serves all of them. It would
    take the colours of an image with a palette for its values, too.
    """

    def _get_supported_prefixes(self) -> list[str]:
        return [SCHEME]

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> io.BytesIO:
        ignored, _, path = path.removeprefix(SCHEME).partition("/")
        with open_image(path) as image:
            labels = np.array(image)
        if labels.dtype == bool:  # Of one bit a pixel.
            labels = labels.astype(np.uint8)
        if labels.ndim != 2 or labels.dtype.kind not in "iu" or labels.max(initial=0) > UNLABELLED:
            raise ValueError(f"{path} is no label image: it must have one channel of 8 bits")
        table = _renumbering([int(value) for value in ignored.split(",") if value])
        opened = io.BytesIO()
        Image.fromarray(table[labels]).save(opened, "BMP")
        opened.seek(0)
        return opened


PathManager.register_handler(_LabelReader(), allow_override=True)


def _renumbering(ignored: Sequence[int]) -> np.ndarray:
    """A table `(256,)` from the values in files to the numbers of classes, and 255 for no class."""
    table = np.full(UNLABELLED + 1, UNLABELLED, dtype=np.uint8)
    kept = [value for value in range(UNLABELLED) if value not in ignored]
    table[kept] = np.arange(len(kept))
    return table


def split_label_path(path: str) -> tuple[str, str]:
    """What stands before the file in the path of a label, and the file."""
    if not path.startswith(SCHEME):
        return "", path
    ignored, slash, file = path.removeprefix(SCHEME).partition("/")
    return SCHEME + ignored + slash, file


def load_labels(path: str, dtype: Any = None, prefix: str = "") -> np.ndarray:
    """Labels `(H, W)` as an array; detectron2's own function does not work with NumPy 2."""
    with PathManager.open(prefix + path, "rb") as file, open_image(file) as image:
        return np.array(image, dtype=dtype)


def register_own(entry: Mapping[str, Any]) -> str:
    """Make a dataset known to detectron2 by what a config says of it, and return the name that it has there.

    Args:
        entry: `images`, and `annotations` of COCO's format, or what else `register_label_images` takes.

    Raises `FileNotFoundError` or `ValueError` if photos or labels are missing.
    """
    if "annotations" in entry:
        return register(CocoDataset(Path(entry["annotations"]), Path(entry["images"]), [], None))
    return register_label_images(**entry)


def evaluator_of(name: str, output_dir: str) -> SemSegEvaluator | None:
    """The evaluator of a dataset of label images, None for one of objects."""
    if MetadataCatalog.get(name).get("evaluator_type") != "sem_seg":
        return None
    return SemSegEvaluator(name, output_dir=output_dir, sem_seg_loading_fn=load_labels)


def register_label_images(
    images: str, labels: str, classes: Sequence[str], ignore: Sequence[int], label_ending: str | None = None
) -> str:
    """Make photos and their labels known to detectron2, and return the name that they have there.

    Args:
        images: folder of the photos.
        labels: folder of the label images.
        classes: names of the classes: of the values 0, 1, 2, ... of labels, without those to ignore.
        ignore: values of no class, beside 255.
        label_ending: what the labels' names end in, where other images lie among them.

    Raises:
        FileNotFoundError, ValueError: there are no photos or labels, or their names do not go together.
    """
    name = f"{Path(images).resolve()} with {Path(labels).resolve()}{f' {label_ending}' if label_ending else ''}"
    if name not in DatasetCatalog:
        suffixes, label_suffix = find_suffixes(Path(images), Path(labels), label_ending)
        arguments = (Path(images), Path(labels), suffixes, label_suffix, list(ignore))
        DatasetCatalog.register(name, lambda: _list_images(*arguments))
        colors = palette(len(classes))
        MetadataCatalog.get(name).set(
            image_root=images,
            stuff_classes=list(classes),
            stuff_colors=colors,
            ignore_label=UNLABELLED,
            evaluator_type="sem_seg",
        )
    return name


def _list_images(images: Path, labels: Path, suffixes: list[str], label_suffix: str, ignore: list[int]) -> list[dict]:
    """detectron2's dicts of the photos that have a label. Raises `FileNotFoundError` for those that have none."""
    dicts, missing = [], []
    prefix = f"{SCHEME}{','.join(map(str, ignore))}/"
    for photo in own_images(images):
        suffix = next((suffix for suffix in suffixes if photo.name.endswith(suffix)), None)
        if suffix is None:
            continue
        relative = photo.relative_to(images)
        label = labels / relative.with_name(relative.name.removesuffix(suffix) + label_suffix)
        if not label.is_file():
            missing.append(f"{photo} has no label: expected {label}")
        sizes = {**_shown_size(photo), "image_id": len(dicts)}
        dicts.append({"file_name": str(photo), "sem_seg_file_name": prefix + str(label.resolve()), **sizes})
    if missing:
        others = f", and {len(missing) - 1} more photos have none" if len(missing) > 1 else ""
        raise FileNotFoundError(f"{missing[0]}{others}")
    return dicts


def _shown_size(photo: Path) -> dict[str, int]:
    """Width and height of a photo as it is loaded, upright; empty if it cannot be read, which the data check tells."""
    try:
        with open_image(photo) as image:
            width, height = image.size
            lies = image.getexif().get(ExifTags.Base.Orientation) in LYING
    except Exception:  # On damaged files, readers pass on whatever they meet.
        return {}
    return {"width": height, "height": width} if lies else {"width": width, "height": height}
