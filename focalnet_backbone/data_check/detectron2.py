"""The datasets of a job of detectron2, as its loader and mapper will read them."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterable
from typing import Any

import detectron2
import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog, detection_utils

from focalnet_backbone.annotations.coco import coco_facts, loaded
from focalnet_backbone.annotations.mend import mend_as_loaded
from focalnet_backbone.data_check.coco import Use, judge_coco, judge_sizes
from focalnet_backbone.data_check.findings import Findings
from focalnet_backbone.data_check.labels import Learnt, Meaning, judge_labels, judge_pairs, look_at_labels
from focalnet_backbone.data_check.photos import judge_photos, look_at_photos, shown_sizes, tell_left_out
from focalnet_backbone.data_check.report import Report, Split
from focalnet_backbone.detectron2.datasets import LOADING
from focalnet_backbone.detectron2.jobs import Job
from focalnet_backbone.detectron2.own_datasets import load_labels, split_label_path


def check_job(job: Job, *, train: bool = True) -> Report:
    """Check the datasets that a job evaluates on, and those that it trains on if `train`."""
    mend_as_loaded()
    report = Report()
    datasets = [(name, True) for name in (job.train_names if train else ())]
    datasets += [(name, False) for name in job.test_names]
    learnt = Learnt()
    for name, is_train in datasets:
        use = Use("detectron2", job.masks, job.keypoints, train=is_train)
        split = _check_dataset(name, job, use, learnt, report.findings)
        if split:
            report.splits.append(split)
    learnt.judge(report.findings)
    if len(report.splits) == len(datasets):
        _compare_classes(job, report)
    report.find_overlaps()
    return report


def _check_dataset(name: str, job: Job, use: Use, learnt: Learnt, findings: Findings) -> Split | None:
    metadata = MetadataCatalog.get(name)
    path, folder = metadata.get("json_file"), metadata.get("image_root")
    if path is None or folder is None:
        return _check_dicts(name, job, use, learnt, findings)
    facts = coco_facts(path, LOADING)
    own = Findings()
    if not judge_coco(facts, path, use, own):
        findings.merge(own)
        return None
    photos = _look(job, [os.path.join(folder, name) for _, name, *_ in facts["images"]])
    judge_photos(photos, path, own)
    judge_sizes(facts, photos, folder, path, own)
    if use.train and use.masks and job.mask_format == "polygon" and facts["outlines"].get("rle"):
        own.add(
            f"{path}: {facts['outlines']['rle']:,} segmentations are run lengths, and the mask format is polygon; set "
            "it to bitmask (INPUT.MASK_FORMAT, or instance_mask_format of the mapper)"
        )
    if not own.errors:
        problem = loaded(path, facts, LOADING)
        if problem:
            own.add(f"{path} cannot be loaded by detectron2: {problem}")
    findings.merge(own)
    categories = sorted(facts["categories"], key=lambda category: str(category[0]).zfill(20))
    return Split(
        name="train" if use.train else "val",
        source=str(path),
        photos=list(photos),
        sizes=shown_sizes(photos.values()),
        unit="objects",
        counts={name: objects for _, name, objects, _ in categories},
        empty=facts["empty"],
        crowds=sum(crowds for *_, crowds in categories),
    )


def _check_dicts(name: str, job: Job, use: Use, learnt: Learnt, findings: Findings) -> Split | None:
    """Check a dataset that is not in COCO's format: detectron2's dicts of images."""
    try:
        dicts = DatasetCatalog.get(name)
        photos = _look(job, [image["file_name"] for image in dicts])
    except Exception as error:  # Of a function of the user's.
        findings.add(f"dataset {name} cannot be loaded: {type(error).__name__}: {error}")
        return None
    judge_photos(photos, name, findings)
    if folder := MetadataCatalog.get(name).get("image_root"):
        tell_left_out(folder, findings)
    unlike = []
    for image in dicts:
        size = photos[image["file_name"]].get("size")
        if size and [image.get("width", size[0]), image.get("height", size[1])] != size:
            unlike.append(f"{image['file_name']} ({size[0]}x{size[1]})")
    findings.count(name, "photo", "of another size than the dataset says", unlike, "correct width and height")
    if dicts and "sem_seg_file_name" in dicts[0]:
        return _check_labels(name, dicts, photos, use, learnt, findings)
    annotations = [a for image in dicts for a in image.get("annotations", ()) if not a.get("iscrowd", 0)]
    classes = MetadataCatalog.get(name).get("thing_classes") or []
    found = Counter(annotation["category_id"] for annotation in annotations)
    foreign = [str(id) for id in found if id not in range(len(classes))] if classes else []
    findings.count(name, "category_id", "beyond thing_classes", foreign, f"use 0 to {len(classes) - 1}")
    if use.masks and use.train:
        without = [a for a in annotations if not a.get("segmentation")]
        cure = "outline them, or train a model of boxes"
        findings.count(
            name, "object", "without a 'segmentation'", (str(a.get("bbox")) for a in without), cure, total=len(without)
        )
    return Split(
        name="train" if use.train else "val",
        source=name,
        photos=list(photos),
        sizes=shown_sizes(photos.values()),
        unit="objects",
        counts={name: found[i] for i, name in enumerate(classes)} or {str(id): found[id] for id in sorted(found)},
        empty=sum(not image.get("annotations") for image in dicts),
    )


def _check_labels(
    name: str, dicts: list[dict], photos: dict[str, dict], use: Use, learnt: Learnt, findings: Findings
) -> Split:
    """Check label images, as the mapper will read them."""
    metadata = MetadataCatalog.get(name)
    classes, ignored = list(metadata.get("stuff_classes") or ()), metadata.get("ignore_label", 255)
    files = {image["file_name"]: split_label_path(image["sem_seg_file_name"]) for image in dicts}
    (prefix, _), *_ = files.values()
    folders = {os.path.dirname(path) for _, path in files.values()}
    folder = folders.pop() if len(folders) == 1 else os.path.commonpath(map(os.path.abspath, folders))
    load = functools.partial(load_labels, prefix=prefix)
    labels = look_at_labels([path for _, path in files.values()], load, f"detectron2 {detectron2.__version__} {prefix}")
    meaning = Meaning(classes, ignored, False)
    pixels = judge_labels(labels, meaning, folder, findings)
    if use.train:
        learnt.add(pixels, meaning, folder)
    judge_pairs([(photo, path) for photo, (_, path) in files.items()], photos, labels, folder, findings)
    return Split(
        name="train" if use.train else "val",
        source=folder,
        photos=list(photos),
        sizes=shown_sizes(photos.values()),
        unit="pixels",
        counts={name: pixels[value] for value, name in enumerate(classes)},
        empty=sum(set(facts.get("counts", ())) == {ignored} for facts in labels.values()),
        ignored=pixels[ignored],
    )


def _look(job: Job, paths: Iterable[str]) -> dict[str, dict[str, Any]]:
    load = functools.partial(_read_image, format=job.image_format)
    return look_at_photos(list(paths), load, f"detectron2 {detectron2.__version__} {job.image_format}")


def _read_image(path: str, format: str) -> np.ndarray:
    return detection_utils.read_image(path, format=format)  # By its module, as the plugin may put a better one there.


def _compare_classes(job: Job, report: Report) -> None:
    first = report.splits[0] if report.splits else None
    for split in report.splits:
        if list(split.counts) != list(first.counts):
            report.findings.add(
                f"{split.source} has other classes than {first.source}: {', '.join(split.counts)}, there "
                f"{', '.join(first.counts)}; name them alike, with the same ids"
            )
    if first and job.classes is not None and job.classes != len(first.counts):
        report.findings.add(
            f"{first.source} has {len(first.counts)} classes, and the model {job.classes}; set {job.classes_key} to "
            f"{len(first.counts)}"
        )
