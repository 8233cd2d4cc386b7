"""The datasets of a config of OpenMMLab, as its dataset classes and pipelines will read them."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, DefaultScope

from focalnet_backbone.annotations.coco import coco_facts, loaded
from focalnet_backbone.annotations.mend import mend_as_loaded
from focalnet_backbone.data_check.coco import Use, judge_coco, judge_order, judge_sizes
from focalnet_backbone.data_check.findings import Findings, counted
from focalnet_backbone.data_check.labels import (
    Learnt,
    Meaning,
    judge_labels,
    judge_pairs,
    look_at_labels,
    unused_labels,
)
from focalnet_backbone.data_check.photos import files_within, judge_photos, look_at_photos, shown_sizes, tell_left_out
from focalnet_backbone.data_check.report import Report, Split
from focalnet_backbone.openmmlab.data import leaf_datasets
from focalnet_backbone.openmmlab.datasets import build_dataset, coco_loading, tell_error, version_of

NO_CLASSES_OF_DATA = ("rpn_head", "semantic_head", "panoptic_head", "panoptic_fusion_head")
"""Heads of mmdetection whose `num_classes` counts other things than the classes of objects."""


def check_config(cfg: Config, loaders: Sequence[str] = ("train_dataloader", "val_dataloader")) -> Report:
    """Check the datasets of a config's data loaders.

    Args:
        cfg: a config of mmsegmentation, mmdetection or mmpretrain, whose default scope is set.
        loaders: keys of `cfg`; those that it lacks are left out.
    """
    mend_as_loaded()
    report = Report()
    datasets: list[tuple[str, Mapping]] = []
    for loader in loaders:
        for dataset in leaf_datasets(cfg[loader].dataset) if cfg.get(loader) else ():
            if all(dataset != other for _, other in datasets):
                datasets.append((loader, dataset))
    _find_missing([dataset for _, dataset in datasets], report.findings)
    if report.findings.errors:
        return report
    together = _Together()
    for loader, dataset in datasets:
        split = _Check(cfg, loader, dataset, report.findings, together).run()
        if split:
            report.splits.append(split)
    together.judge(report.findings)
    report.find_overlaps()
    return report


def _find_missing(datasets: Sequence[Mapping], findings: Findings) -> None:
    """Add datasets whose folders or annotation files are not there, with the layout that is expected."""
    expected: dict[str, list[str]] = {}
    for dataset in datasets:
        expected.setdefault(dataset.get("data_root") or ".", []).extend(_parts(dataset))
    for root, parts in expected.items():
        if "://" not in root and not all((Path(root) / part).exists() for part in parts):
            layout = ", ".join(dict.fromkeys(parts))
            findings.add(f"no dataset at {root} (in {Path.cwd()}). Expected in that folder: {layout}")


@dataclass
class _Together:
    """What can be said of datasets together only: one may read the files that another leaves out.

    Attributes:
        learnt: pixels that are trained on.
        photos: by folder, the endings that are read.
        labels: by folder, the endings and the files that are read.
    """

    learnt: Learnt = field(default_factory=Learnt)
    photos: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    labels: dict[str, tuple[set[str], set[str]]] = field(default_factory=lambda: defaultdict(lambda: (set(), set())))

    def judge(self, findings: Findings) -> None:
        """Add what is wrong."""
        self.learnt.judge(findings)
        labels = tuple(os.path.join(folder, "") for folder in self.labels)
        for folder, suffixes in self.photos.items():
            there = (path for path in files_within(folder) if _is_photo(path) and not path.startswith(labels))
            unread = [path for path in there if not path.endswith(tuple(suffixes))]
            cure = f"the config reads *{', *'.join(sorted(suffixes))} only: rename them, or set img_suffix"
            findings.count(folder, "photo", "of another ending", unread, cure, error=False)
        for folder, (suffixes, paths) in self.labels.items():
            unused_labels(paths, folder, sorted(suffixes), findings)


class _Check:
    """The check of one dataset."""

    def __init__(self, cfg: Config, loader: str, dataset: Mapping, findings: Findings, together: _Together) -> None:
        self.cfg = cfg
        self.together = together
        self.name = loader.removesuffix("_dataloader")
        self.config = dataset
        self.scope = DefaultScope.get_current_instance().scope_name
        self.findings = findings

    def run(self) -> Split | None:
        """What is in it; None if it cannot be told."""
        try:
            dataset = build_dataset(self.config, self.scope, lazy_init=True)
        except Exception as error:  # Of classes that a config may bring along.
            self.findings.add(f"the dataset of {self.name}_dataloader cannot be built: {tell_error(error)}")
            return None
        classes = dataset.metainfo.get("classes")
        if isinstance(classes, str):
            self.findings.add(
                f"{self.name}_dataloader: metainfo.classes is the text {classes!r}, which would be taken letter by "
                f"letter; write classes=({classes!r},)"
            )
            return None
        self.classes = list(classes or dataset.metainfo.get("thing_classes") or ())
        self._check_heads()
        if _reads_panoptic(dataset):  # Of another format: that its files are there is all that is told.
            return None
        if _reads_coco(dataset):
            return self._check_coco(dataset)
        return self._check_listed(dataset)

    def _loading(self) -> list[Callable]:
        """The transforms with which the dataset's pipeline begins: those that load."""
        steps = [step for step in self.config.get("pipeline", ()) if "Load" in str(step["type"])]
        return [TRANSFORMS.build({**step, "_scope_": self.scope}) for step in steps]

    def _check_heads(self) -> None:
        model = self.cfg.get("model") or {}
        if not self.classes or "language_model" in model:
            return
        counts = [*_heads(model, "model")]
        if number := (self.cfg.get("data_preprocessor") or {}).get("num_classes"):  # mmpretrain's, to mix labels.
            counts.append(("data_preprocessor", number))
        for name, number in counts:
            if number != len(self.classes):
                self.findings.add(
                    f"{name}.num_classes is {number}, but the data has {len(self.classes)} (metainfo.classes)"
                )

    def _photos(self, paths: list[str], loading: list[Callable], place: str, findings: Findings) -> dict[str, dict]:
        image = [step for step in loading if type(step).__name__.startswith("LoadImage")]
        if not image or any(re.match(r"[\w+.-]+://", path) for path in paths[:1]):  # Not on this machine.
            return {path: {} for path in paths}
        photos = look_at_photos(paths, _LoadImage(image[0]), f"mmengine {version_of(image[0])} {image[0]!r}")
        judge_photos(photos, place, findings)
        return photos

    def _check_coco(self, dataset: Any) -> Split | None:
        path, folder = dataset.ann_file, dataset.data_prefix.get("img", "")
        asked = coco_loading(self.config, self.scope)
        facts = coco_facts(path, asked)
        loading = self._loading()
        masks = any(getattr(step, "with_mask", False) for step in loading) or self._evaluates("segm")
        use = Use("mmdetection", masks, train=self.name == "train", measured=not self._formats_only())
        own = Findings()
        if not judge_coco(facts, path, use, own, self.classes):
            self.findings.merge(own)
            return None
        judge_order(facts, path, self.classes, own)
        self._check_evaluator(path, own)
        photos = self._photos([os.path.join(folder, name) for _, name, *_ in facts["images"]], loading, path, own)
        judge_sizes(facts, photos, folder, path, own)
        if not own.errors:
            self._judge_loaded(loaded(path, facts, asked), path, use, own)
        self.findings.merge(own)
        return Split(
            name=self.name,
            source=str(path),
            photos=list(photos),
            sizes=shown_sizes(photos.values()),
            unit="objects",
            counts={name: objects for _, name, objects, _ in facts["categories"] if name in self.classes},
            empty=facts["empty"],
            crowds=sum(crowds for *_, crowds in facts["categories"]),
        )

    def _judge_loaded(self, found: dict[str, Any], path: str, use: Use, findings: Findings) -> None:
        if "error" in found:
            findings.add(f"{path} cannot be loaded by mmdetection: {found['error']}")
        elif not found["images"] or not (found["objects"] or not use.measured):
            what = counted(found["images"], "image") + " and " + counted(found["objects"], "object")
            findings.add(f"{path}: mmdetection keeps {what} of it; see filter_cfg, and the sizes of images and boxes")

    def _evaluators(self) -> list[Mapping]:
        found = self.cfg.get(f"{self.name}_evaluator") or []
        return list(found) if isinstance(found, Sequence) else [found]

    def _evaluates(self, metric: str) -> bool:
        return any(metric in (e.get("metric") or ()) for e in self._evaluators())

    def _formats_only(self) -> bool:
        return any(evaluator.get("format_only") for evaluator in self._evaluators())

    def _check_evaluator(self, path: str, findings: Findings) -> None:
        for evaluator in self._evaluators():
            own = evaluator.get("ann_file")
            name = f"{self.name}_evaluator.ann_file"
            if not own or "://" in own:
                continue
            if not Path(own).is_file():
                findings.add(f"{name} is {own}, which is not there; {self.name}_dataloader reads {path}")
            elif os.path.realpath(own) != os.path.realpath(path):
                findings.add(f"{name} is {own}, and {self.name}_dataloader reads {path}; name one file")

    def _check_listed(self, lazy: Any) -> Split | None:
        """Check a dataset that lists its images itself: labels of segmentation, and whatever else there is."""
        folder = lazy.data_prefix.get("img_path") or lazy.data_prefix.get("img") or lazy.data_root or "."
        try:
            dataset = build_dataset(self.config, self.scope)
        except Exception as error:  # Of whatever the class does not expect.
            self.findings.add(f"the dataset of {self.name}_dataloader cannot be loaded: {tell_error(error)}")
            return None
        if not self.classes:  # Some know them only when they have read their file.
            self.classes = list(dataset.metainfo.get("classes") or ())
            self._check_heads()
        samples = getattr(dataset, "data_list", None) or []
        suffix = getattr(dataset, "img_suffix", None)
        if not samples:
            others = _endings(folder)
            hint = f"; it has files that end in {', '.join(others)}: set img_suffix" if others and suffix else ""
            reads = f" that {type(dataset).__name__} reads (*{suffix})" if suffix else ""
            self.findings.add(f"no image in {folder}{reads}{hint}")
            return None
        loading = self._loading()
        photos = self._photos([sample["img_path"] for sample in samples], loading, str(folder), self.findings)
        if folder != ".":
            self._tell_lost({sample["img_path"] for sample in samples}, str(folder))
            tell_left_out(str(folder), self.findings)
        if suffix and Path(folder).is_dir():
            self.together.photos[str(folder)].add(suffix)
        label_loading = [step for step in loading if not type(step).__name__.startswith("LoadImage")]
        if label_loading and samples[0].get("seg_map_path"):
            return self._check_labels(dataset, samples, photos, _LoadLabel(label_loading, samples[0]))
        return self._count_instances(samples, photos, folder)

    def _tell_lost(self, listed: set[str], folder: str) -> None:
        """Add photos that the dataset leaves out as there is nothing behind their names."""
        others = (path for path in files_within(folder) if path not in listed and _is_photo(path))
        lost = [path for path in others if os.path.islink(path) and not os.path.exists(path)]
        cure = "it is left out: put its file there, or take the link away"
        self.findings.count(folder, "photo", "whose link leads nowhere", lost, cure, error=False)

    def _check_labels(self, dataset: Any, samples: list[dict], photos: dict[str, dict], load: _LoadLabel) -> Split:
        paths = [sample["seg_map_path"] for sample in samples]
        folder = str(dataset.data_prefix.get("seg_map_path") or Path(paths[0]).parent)
        pairs = [(sample["img_path"], sample["seg_map_path"]) for sample in samples]
        there = {label for label in paths if os.path.exists(label)}
        missing = [f"{photo} has no label, expected {label}" for photo, label in pairs if label not in there]
        self.findings.count(folder, "photo", "without a label", missing, "draw it, or take the photo out")
        labels = look_at_labels([path for path in paths if path in there], load, load.description())
        classes = self.classes or [f"class {i}" for i in range(self._number_of_classes())]
        ignored = getattr(dataset, "ignore_index", 255)
        meaning = Meaning(classes, ignored, bool(getattr(dataset, "reduce_zero_label", False)))
        if len(classes) > ignored:
            self.findings.add(
                f"{folder}: there are {len(classes)} classes, and {type(dataset).__name__} keeps labels in 8 bits, "
                f"with {ignored} for pixels of none; up to {ignored} classes are possible"
            )
        pixels = judge_labels(labels, meaning, folder, self.findings)
        if self.name == "train":
            self.together.learnt.add(pixels, meaning, folder)
        known = [pair for pair in pairs if pair[1] in labels]
        judge_pairs(known, photos, labels, folder, self.findings)
        if Path(folder).is_dir():
            suffixes, read = self.together.labels[folder]
            suffixes.add(dataset.seg_map_suffix)
            read.update(paths)
        return Split(
            name=self.name,
            source=folder,
            photos=list(photos),
            sizes=shown_sizes(photos.values()),
            unit="pixels",
            counts={name: pixels[value] for value, name in enumerate(classes)},
            empty=sum(set(facts.get("counts", ())) == {ignored} for facts in labels.values()),
            ignored=pixels[ignored],
        )

    def _number_of_classes(self) -> int:
        return max((number for _, number in _heads(self.cfg.get("model") or {}, "model")), default=0)

    def _count_instances(self, samples: list[dict], photos: dict[str, dict], folder: str) -> Split:
        """Check what samples of other tasks hold: boxes of other formats, or one label of each image."""
        found: Counter[int] = Counter()
        empty = 0
        for sample in samples:
            given = [o["bbox_label"] for o in sample.get("instances", ()) if not o.get("ignore_flag")]
            if "gt_label" in sample:
                given = np.atleast_1d(sample["gt_label"]).tolist()
            found.update(given)
            empty += not given
        foreign = [str(label) for label in found if self.classes and label not in range(len(self.classes))]
        self.findings.count(folder, "label", "that is no class", foreign, f"there are {len(self.classes)} classes")
        if not found and self.name == "train":
            self.findings.add(f"{folder}: no object or label to learn from")
        absent = [repr(name) for label, name in enumerate(self.classes) if not found[label]]
        what = "without a photo" if samples and "gt_label" in samples[0] else "without an object"
        self.findings.count(folder, "class", what, absent, "nothing is learnt or measured of it", error=False)
        names = self.classes or [str(label) for label in sorted(found)]
        return Split(
            name=self.name,
            source=str(folder),
            photos=list(photos),
            sizes=shown_sizes(photos.values()),
            unit="objects",
            counts={name: found[value] for value, name in enumerate(names)},
            empty=empty,
        )


PHOTO_ENDINGS = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class _LoadImage:
    """From a path to pixels, by a transform of the pipeline."""

    transform: Callable

    def __call__(self, path: str) -> np.ndarray | None:
        sample = self.transform({"img_path": path})
        return None if sample is None else sample["img"]


@dataclass(frozen=True)
class _LoadLabel:
    """From a path to values, by the transforms of the pipeline, with what a sample of the dataset tells them."""

    transforms: Sequence[Callable]
    sample: Mapping[str, Any]

    def __call__(self, path: str) -> np.ndarray:
        sample = {**self.sample, "seg_map_path": path, "seg_fields": []}
        for transform in self.transforms:
            sample = transform(sample)
        return sample["gt_seg_map"]

    def description(self) -> str:
        """All that its results depend on."""
        told = {key: self.sample.get(key) for key in ("label_map", "reduce_zero_label")}
        return f"{[(version_of(step), repr(step)) for step in self.transforms]} {told}"


def _parts(dataset: Mapping) -> list[str]:
    """Folders and files, relative to the dataset's root, that it reads."""
    prefix = dataset.get("data_prefix") or {}
    names = [*([prefix] if isinstance(prefix, str) else prefix.values()), dataset.get("ann_file")]
    return list(dict.fromkeys(name for name in names if isinstance(name, str) and name and "://" not in name))


def _reads_panoptic(dataset: Any) -> bool:
    return any(kind.__name__ == "CocoPanopticDataset" for kind in type(dataset).__mro__)


def _reads_coco(dataset: Any) -> bool:
    """Whether a dataset is mmdetection's of COCO's format, or one that reads files as that one does."""
    for kind in type(dataset).__mro__:
        if "load_data_list" in vars(kind):
            return kind.__module__ == "mmdet.datasets.coco"
    return False


def _heads(part: Any, name: str) -> Iterator[tuple[str, int]]:
    """Name and `num_classes` of each head of a model that tells classes of the data apart."""
    if isinstance(part, Mapping):
        if name.rpartition(".")[2].partition("[")[0].rpartition("_")[2] == "head" and isinstance(
            part.get("num_classes"), int
        ):
            yield name, part["num_classes"]
        for key, value in part.items():
            if key not in NO_CLASSES_OF_DATA and isinstance(value, Mapping | list | tuple):
                yield from _heads(value, f"{name}.{key}")
    elif isinstance(part, Sequence) and not isinstance(part, str):
        for i, value in enumerate(part):
            yield from _heads(value, f"{name}[{i}]" if len(part) > 1 else name)


def _endings(folder: str) -> list[str]:
    """Endings of the photos in a folder."""
    return sorted({os.path.splitext(path)[1] for path in files_within(folder) if _is_photo(path)})


def _is_photo(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in PHOTO_ENDINGS
