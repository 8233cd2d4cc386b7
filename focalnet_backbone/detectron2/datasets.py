"""Datasets in COCO's format: checked before training starts, and registered with the classes that the file names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from focalnet_backbone.config import closest


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
        FileNotFoundError: the file, the folder or the first of its images is not there.
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
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list) or not content[key]:
            raise ValueError(
                f"{annotations} is not in COCO's detection format: it has no list of {key!r}, or none in it"
            )
    first = images / content["images"][0]["file_name"]
    if not first.is_file():
        raise FileNotFoundError(f"{annotations} names an image that is not there: {first}")
    outlines = [a.get("segmentation") for a in content["annotations"] if not a.get("iscrowd")]
    masks = None
    if all(outlines):
        masks = "bitmask" if any(isinstance(outline, dict) for outline in outlines) else "polygon"
    categories = sorted(({"id": c["id"], "name": c["name"]} for c in content["categories"]), key=lambda c: c["id"])
    return CocoDataset(annotations, images, categories, masks)


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
