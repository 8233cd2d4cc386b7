"""Datasets in COCO's format: checked before training starts, and registered with the classes that the file names."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import detectron2
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json, register_coco_instances

from focalnet_backbone.annotations.coco import Loading, coco_facts
from focalnet_backbone.annotations.mend import mend_as_loaded
from focalnet_backbone.system.spelling import closest


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
    """Read what a job must know of a dataset; what is wrong with the rest of it, the data check tells.

    Raises:
        FileNotFoundError: the file or the folder is not there.
        ValueError: the file is not in COCO's detection format, or has no classes.
    """
    annotations, images = Path(annotations), Path(images)
    if not annotations.is_file():
        raise FileNotFoundError(f"no annotations at {annotations}")
    if not images.is_dir():
        raise FileNotFoundError(f"no folder of images at {images}")
    facts = coco_facts(str(annotations), LOADING)
    if "broken" in facts:
        raise ValueError(f"{annotations} {facts['broken']}")
    outlines = facts["outlines"]
    masks = None if outlines.get("none") else "bitmask" if outlines.get("rle") else "polygon"
    categories = [{"id": id, "name": name} for id, name, *_ in facts["categories"]]
    return CocoDataset(
        annotations, images, sorted(categories, key=lambda c: (isinstance(c["id"], str), c["id"])), masks
    )


def _load(path: str) -> str | None:
    """Load a file as detectron2 does. Returns what is wrong."""
    mend_as_loaded()
    name = f"check of {path}"
    logging.disable(logging.WARNING)
    try:
        load_coco_json(path, "", name)
    except MemoryError:  # It says nothing of the file, and the answer is kept.
        raise
    except Exception as error:  # Of whatever detectron2 does not expect.
        return f"{type(error).__name__}: {error}"
    finally:
        logging.disable(logging.NOTSET)
        if name in MetadataCatalog:
            MetadataCatalog.remove(name)
    return None


LOADING = Loading(f"detectron2 {detectron2.__version__} loads, 2", _load, bounds_do=True)
"""Whether detectron2 can load a file: None, or what is wrong."""


def register(dataset: CocoDataset) -> str:
    """Make a dataset known to detectron2, and return the name that it has there: the path of its annotations."""
    mend_as_loaded()
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
    mend_as_loaded()
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
    names = metadata.get("thing_classes") or metadata.get("stuff_classes") or []
    ids = {index: id for id, index in (metadata.get("thing_dataset_id_to_contiguous_id") or {}).items()}
    return [{"id": ids.get(index, index), "name": name} for index, name in enumerate(names)]
