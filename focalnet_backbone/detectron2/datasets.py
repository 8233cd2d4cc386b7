"""Datasets in COCO's format: checked before training starts, and registered with the classes that the file names."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from focalnet_backbone.system.spelling import closest

FIELDS = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}
"""What each entry of the three lists of COCO's detection format must have to be trained on."""


@dataclass(frozen=True)
class CocoDataset:
    """A dataset in COCO's format.

    Attributes:
        annotations: path of the JSON file.
        images: folder of the images.
        categories: `{"id": int, "name": str}` of each class, by id.
        masks: "polygon" or "bitmask", as its objects are outlined; None if they are not.
    """

    annotations: Path
    images: Path
    categories: list[dict]
    masks: str | None


def read_coco(annotations: str | Path, images: str | Path) -> CocoDataset:
    """Read what training needs to know of a dataset before it starts.

    Raises:
        FileNotFoundError: the file, the folder or an image that the file names is not there.
        ValueError: the file is not in COCO's detection format, or has no classes, images or objects.
    """
    annotations, images = Path(annotations), Path(images)
    if not annotations.is_file():
        raise FileNotFoundError(f"no annotations at {annotations}")
    if not images.is_dir():
        raise FileNotFoundError(f"no folder of images at {images}")
    try:
        content = json.loads(annotations.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{annotations} is not valid JSON: {error}") from error
    try:
        _check_content(content)
    except ValueError as error:
        raise ValueError(f"{annotations} is not in COCO's detection format: {error}") from error
    _check_images(annotations, images, [image["file_name"] for image in content["images"]])
    outlines = [a.get("segmentation") for a in content["annotations"] if not a.get("iscrowd")]
    masks = None
    if all(outlines):
        masks = "bitmask" if any(isinstance(outline, dict) for outline in outlines) else "polygon"
    categories = sorted(({"id": c["id"], "name": c["name"]} for c in content["categories"]), key=lambda c: c["id"])
    return CocoDataset(annotations, images, categories, masks)


def _check_content(content: Any) -> None:
    """Raise `ValueError` that says what COCO's detection format has and the content has not."""
    for key, fields in FIELDS.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not entries:
            raise ValueError(f"it has no list of {key!r}, or none in it")
        for number, entry in enumerate(entries):
            lacking = [field for field in fields if field not in entry] if isinstance(entry, dict) else fields
            if lacking:
                raise ValueError(f"entry {number} of {key!r} has no {', '.join(map(repr, lacking))}")
    for key, owner in (("images", "image_id"), ("categories", "category_id")):
        ids = [entry["id"] for entry in content[key]]
        if len(set(ids)) < len(ids):
            raise ValueError(f"two entries of {key!r} have the same id")
        unknown = {annotation[owner] for annotation in content["annotations"]}.difference(ids)
        if unknown:
            raise ValueError(f"an annotation has {owner} {unknown.pop()!r}, which is not among {key!r}")


def _check_images(annotations: Path, folder: Path, names: list[str]) -> None:
    there = set(os.listdir(folder))  # One look at the folder is faster than one at each of many images.
    missing = [name for name in names if name not in there and not (folder / name).exists()]
    if missing:
        raise FileNotFoundError(
            f"{annotations} names {len(missing)} images that are not there, such as {folder / missing[0]}"
        )


def register(dataset: CocoDataset) -> str:
    """Make a dataset known to detectron2, and return the name that it has there: the path of its annotations."""
    name = str(dataset.annotations.resolve())
    if name not in DatasetCatalog:
        register_coco_instances(name, {}, name, str(dataset.images))
    return name


def check_registered(names: list[str]) -> None:
    """Check that datasets which a config names are known to detectron2, and their files there.

    Raises:
        ValueError: there is no dataset of that name.
        FileNotFoundError: its files are missing; the message tells the layout.
    """
    for name in names:
        if name not in DatasetCatalog:
            raise ValueError(f"no dataset is registered as {name!r}.{closest(name, DatasetCatalog.list())}")
        metadata = MetadataCatalog.get(name)
        for part in ("json_file", "image_root"):
            path = Path(metadata.get(part) or ".")
            if not path.exists():
                raise FileNotFoundError(
                    f"dataset {name} is not there: no {path}. COCO is expected as annotations/instances_SPLIT.json and "
                    "SPLIT/*.jpg (SPLIT: train2017, val2017) in the folder coco under $DETECTRON2_DATASETS "
                    "(default ./datasets); other datasets are given by --train-json, --train-images, --val-json and "
                    "--val-images"
                )


def categories_of(name: str) -> list[dict]:
    """`{"id": int, "name": str}` of the classes of a registered dataset that has been loaded, in the model's order."""
    metadata = MetadataCatalog.get(name)
    names = metadata.get("thing_classes") or []
    ids = {index: id for id, index in (metadata.get("thing_dataset_id_to_contiguous_id") or {}).items()}
    return [{"id": ids.get(index, index), "name": name} for index, name in enumerate(names)]
