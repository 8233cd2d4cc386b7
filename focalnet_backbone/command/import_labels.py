"""Convert what labelling programs write into what trains: a file in COCO's format, or label images.

Reads COCO, YOLO, labelme, Pascal VOC and CreateML by the package supervision; CVAT and Label Studio export several of
these.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from focalnet_backbone.own_data import UNLABELLED
from focalnet_backbone.system.command_line import called, fail, parse, printable, program
from focalnet_backbone.system.files import whole_file
from focalnet_backbone.system.inputs import check_file, read_json, read_yaml
from focalnet_backbone.system.outputs import claim, result_file

TOOL = "import_labels.py"

EXAMPLES = """examples:
  a file of objects in COCO's format, from labelme's files:
    focalnet import-labels --from labelme --images photos --labels photos --out train.json
  label images, a value for each class, from YOLO's outlines; the names go to labels/classes.txt:
    focalnet import-labels --from yolo --images photos --labels txt --data data.yaml --out labels/
"""

FORMATS = {"coco": "a file", "createml": "a file", "labelme": "a folder", "voc": "a folder", "yolo": "a folder"}
"""The formats, and what holds the labels of each."""


@program(TOOL)
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="format", choices=FORMATS, required=True, help="format of the labels")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the photos")
    parser.add_argument("--labels", type=Path, required=True, metavar="PATH", help="folder or file of the labels")
    parser.add_argument("--data", type=Path, metavar="FILE", help="YOLO's data.yaml, which names the classes")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="PATH", help="a .json file to write, or a folder for label images"
    )
    args = parse(parser, arguments)
    try:
        dataset = read_labels(args.format, args.images, args.labels, args.data, masks=args.out.suffix != ".json")
        write = write_coco if args.out.suffix == ".json" else write_label_images
        print(write(dataset, args.out, args.images))
    except (ImportError, OSError, ValueError) as error:
        return fail(TOOL, error)
    return 0


def read_labels(format: str, images: Path, labels: Path, data: Path | None, *, masks: bool) -> Any:
    """The photos and labels of a folder, as supervision's `DetectionDataset`.

    Raises:
        FileNotFoundError: something is not there.
        ImportError: supervision is not installed.
        OSError: there is a pipe or a device among the files.
        ValueError: the labels are not of this format, or there is nothing in them.
    """
    if not images.is_dir():
        raise FileNotFoundError(f"no folder of photos at {images}")
    if not (labels.is_file() if FORMATS[format] == "a file" else labels.is_dir()):
        raise FileNotFoundError(f"{format} has its labels in {FORMATS[format]}; there is none at {labels}")
    if format == "yolo" and (data is None or not data.is_file()):
        raise FileNotFoundError(f"YOLO's data.yaml is needed for the names: {f'none at {data}' if data else '--data'}")
    for path in (*images.iterdir(), *(labels.iterdir() if labels.is_dir() else ())):
        if not path.is_dir():
            check_file(path)
    if data:
        read_yaml(data)
    try:
        from supervision import DetectionDataset
    except ModuleNotFoundError as error:
        raise ImportError(f"needs supervision: pip install supervision ({error})") from error
    paths = [str(images), str(labels), *([str(data)] if format == "yolo" else [])]
    reader = getattr(DetectionDataset, f"from_{'pascal_voc' if format == 'voc' else format}")
    # YOLO's outlines are read in any case; its boxes would become outlines that nobody drew.
    options = {} if format in ("createml", "yolo") else {"force_masks": masks}
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", UserWarning)
            dataset = reader(*paths, **options)
            objects = sum(len(detections) for _, _, detections in dataset)
    except Exception as error:  # Of parsers of many formats, on files of any content.
        raise ValueError(f"{labels} cannot be read as {format}: {type(error).__name__}: {error}") from error
    for message in dict.fromkeys(str(warning.message) for warning in told if warning.category is UserWarning):
        print(f"{called(TOOL)}: warning: {printable(message)}", file=sys.stderr)
    if not objects:
        raise ValueError(f"no object in {labels} for the photos in {images}")
    return dataset


def write_coco(dataset: Any, out: Path, images: Path) -> str:
    """Write a dataset as a file in COCO's format, and return a line on it. Raises `OSError` or `ValueError`."""
    names = Counter(Path(path).name for path in dataset.image_paths)
    repeated = [name for name, count in names.items() if count > 1]
    if repeated:
        raise ValueError(f"several photos in {images} are called {repeated[0]}")
    claim([(out, "the labels")], dataset.image_paths)
    with result_file(out) as unfinished:
        dataset.as_coco(annotations_path=str(unfinished))
        content = read_json(unfinished, most=None)
        places = {Path(path).name: _below(images, path).as_posix() for path in dataset.image_paths}
        for image in content["images"]:  # Which supervision calls by their names alone.
            image["file_name"] = places[image["file_name"]]
        unfinished.write_text(json.dumps(content), encoding="utf-8")
    objects = sum(len(detections) for _, _, detections in dataset)
    return f"wrote {objects} objects of {len(dataset.classes)} classes in {len(dataset)} photos to {out}"


def _below(images: Path, path: str) -> Path:
    """The path of a photo below their folder, which readers name as they like; of one that lies elsewhere, its name."""
    photo = Path(path)
    for folder in (images, images.absolute(), images.resolve()):
        if photo.is_relative_to(folder) and ".." not in (within := photo.relative_to(folder)).parts:
            return within
    return Path(photo.name)


def write_label_images(dataset: Any, out: Path, images: Path) -> str:
    """Write a label image for each photo, and the names of its values, and return a line on them.

    They lie in folders as the photos do. Value 0 is background, i that of the i-th class. Of objects that overlap, the
    smaller one is seen.

    Raises `OSError`, or `ValueError` if objects have no outlines.
    """
    if len(dataset.classes) >= UNLABELLED:
        raise ValueError(f"{len(dataset.classes)} classes are more than label images of 8 bits can tell apart")
    outputs = {path: out / _below(images, path).with_suffix(".png") for path in dataset.image_paths}
    claim([*((file, path) for path, file in outputs.items()), (out / "classes.txt", "names")], dataset.image_paths)
    for path, detections in dataset.annotations.items():
        # What has a box alone, some readers give a mask without a pixel.
        if len(detections) and (detections.mask is None or not detections.mask.any((1, 2)).all()):
            raise ValueError(f"{path} has boxes without outlines, of which no label image can be made; write .json")
    for path, photo, detections in dataset:
        labels = np.zeros(photo.shape[:2], dtype=np.uint8)
        masks = list(detections.mask) if len(detections) else []
        for index in sorted(range(len(masks)), key=lambda i, masks=masks: -masks[i].sum()):
            labels[masks[index]] = detections.class_id[index] + 1
        with result_file(outputs[path]) as unfinished:
            Image.fromarray(labels).save(unfinished)
    with whole_file(out / "classes.txt") as unfinished:
        unfinished.write_text("\n".join(["background", *dataset.classes]) + "\n", encoding="utf-8")
    return f"wrote {len(outputs)} label images and {out / 'classes.txt'}"
