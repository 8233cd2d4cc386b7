"""A user's own data in the place of a config's, in configs of detectron2."""

from __future__ import annotations

from focalnet_backbone.detectron2.datasets import read_coco
from focalnet_backbone.detectron2.jobs import Job
from focalnet_backbone.own_data import OwnData, Split


def use_own_data(job: Job, data: OwnData) -> None:
    """Put a user's data in the place of a job's, and fit all that depends on it: heads, evaluation, sizes.

    Args:
        job: a job of a detector (for COCO files) or a segmenter (for label images); it is changed, and its `notes` are
            a line for each thing that was set.
        data: what to train and evaluate on.

    Raises:
        FileNotFoundError: files are missing.
        ValueError: the job is for other data, or the data's classes are wrong.
    """
    if data.kind == "folders":
        raise ValueError(
            "detectron2 learns from label images (--train-labels) or objects (--train-json), not from folders"
        )
    if data.is_masks != job.is_semantic:
        if data.is_masks:
            raise ValueError(f"label images need a model of semantic segmentation; {job.semantic_hint}")
        raise ValueError("a model of semantic segmentation learns from label images (--train-labels), not from objects")
    splits = {name: split for name, split in (("train", data.train), ("val", data.val)) if split}
    notes = _use_label_images(job, data, splits) if data.is_masks else _use_coco(job, data, splits)
    if data.size:
        job.set_size(data.size)
        notes.append(f"photos become about {data.size[0]}x{data.size[1]} pixels")
    if not data.val:
        notes.append("nothing is evaluated: there is no --val-images")
    job.notes = notes


def _use_label_images(job: Job, data: OwnData, splits: dict[str, Split]) -> list[str]:
    described = {"classes": list(data.classes), "ignore": list(data.ignore)}
    if data.label_ending:
        described["label_ending"] = data.label_ending
    entries = {
        name: {"images": str(split.images), "labels": str(split.labels), **described} for name, split in splits.items()
    }
    job.use_own(entries)
    job.set_classes(len(data.classes))
    job.best_metric = "sem_seg/mIoU"
    notes = [f"{len(data.classes)} classes: {', '.join(data.classes)}"]
    notes += [f"{name}: photos in {split.images}, labels in {split.labels}" for name, split in splits.items()]
    if data.ignore:
        notes.append(f"labels of value {', '.join(map(str, data.ignore))} are of no class")
    return notes


def _use_coco(job: Job, data: OwnData, splits: dict[str, Split]) -> list[str]:
    datasets = {name: read_coco(split.annotations, split.images) for name, split in splits.items()}
    job.use_datasets(datasets.get("train"), datasets.get("val"))
    names = [category["name"] for category in next(iter(datasets.values())).categories]
    if data.classes and set(data.classes) != set(names):
        raise ValueError(f"--classes has other names than the files: detectron2 takes all of them, {', '.join(names)}")
    notes = [f"{len(names)} classes: {', '.join(names)}"]
    return notes + [f"{name}: {split.annotations} with photos in {split.images}" for name, split in splits.items()]
