"""A user's own data in the place of a config's, in configs of mmsegmentation, mmdetection and mmpretrain."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import TRANSFORMS

from focalnet_backbone.annotations.coco import Facts, Loading, coco_facts
from focalnet_backbone.features.images import IMAGE_SUFFIXES
from focalnet_backbone.openmmlab.datasets import coco_loading
from focalnet_backbone.openmmlab.sizes import kind_of, pipelines_of, set_size, steps_of
from focalnet_backbone.own_data import UNLABELLED, OwnData, Split, find_suffixes, list_classes, palette
from focalnet_backbone.system.spelling import closest

LOADERS = {"train": ("train",), "val": ("val", "test")}
"""The data loaders that each split of a user's data is for."""

OF_OTHER_THINGS = ("rpn_head",)
"""Heads whose classes are not those of the data."""

LEFT_OVERS = ("classes", "data_root", "dataset", "dataset_type", "metainfo", "palette")
"""Names that configs use to build their data loaders, and nothing reads afterwards."""


@TRANSFORMS.register_module()
class RenumberLoadedLabels:
    """Give the classes of a loaded label image the numbers 0, 1, 2, ..., and pixels of no class 255.

    Comes after `LoadAnnotations`, so that label files can stay as they are. A value that is neither that of a class
    nor to be ignored stays, for the check of the data to find. A photo without a label passes.

    Args:
        values: the value of each class in the files.
        ignore: the values of no class.
    """

    def __init__(self, values: list[int], ignore: list[int]) -> None:
        self.values, self.ignore = list(values), list(ignore)
        self.table = np.arange(UNLABELLED + 1, dtype=np.uint8)
        self.table[self.values] = np.arange(len(self.values))
        self.table[[*self.ignore, UNLABELLED]] = UNLABELLED

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Renumber `results["gt_seg_map"]` `(H, W)`."""
        if "gt_seg_map" in results:
            results["gt_seg_map"] = self.table[results["gt_seg_map"]]
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(values={self.values}, ignore={self.ignore})"


def use_own_data(cfg: Config, data: OwnData) -> list[str]:
    """Put a user's data in the place of a config's, and fit all that depends on it: heads, evaluators, sizes.

    Args:
        cfg: a config of mmsegmentation (for label images), mmdetection (for COCO files) or mmpretrain (for a folder a
            class); it is changed.
        data: what to train and evaluate on.

    Returns:
        A line for each thing that was set.

    Raises:
        FileNotFoundError: there are no photos or no labels.
        ValueError: the config is for other data, or the classes of COCO files are wrong.
    """
    scope = cfg.get("default_scope")
    wanted, given, prepare = _KINDS[data.kind]
    if scope != wanted:
        raise ValueError(f"{cfg.filename} is a config of {scope}, which does not learn from {given}, as {wanted} does")
    notes: list[str] = []
    classes = prepare(cfg, data, notes)
    _set_heads(cfg.model, classes, notes)
    if data.size:
        set_size(cfg, data.size, notes)
    _drop_evaluation_of_others(cfg, data, notes)
    for name in LEFT_OVERS:
        cfg.pop(name, None)
    for name, loader in (("train_pipeline", "train"), ("test_pipeline", "test"), ("val_pipeline", "val")):
        leaf = next(_leaves((cfg.get(f"{loader}_dataloader") or {}).get("dataset") or {}), {})
        if name in cfg and leaf.get("pipeline"):
            cfg[name] = copy.deepcopy(leaf["pipeline"])
    return notes


def _segmentation(cfg: Config, data: OwnData, notes: list[str]) -> int:
    """Set the data loaders and evaluators of mmsegmentation. Returns the number of classes."""
    metainfo = {"classes": list(data.classes), "palette": palette(len(data.classes))}
    notes.append(f"{len(data.classes)} classes: {', '.join(data.classes)}")
    for name, split in _splits(data):
        photos, label = find_suffixes(split.images, split.labels, data.label_ending)
        notes.append(f"{name}: photos *{', *'.join(photos)} in {split.images}, labels *{label} in {split.labels}")
        common = {
            "type": "BaseSegDataset",
            "metainfo": metainfo,
            "data_prefix": {"img_path": str(split.images), "seg_map_path": str(split.labels)},
            "seg_map_suffix": label,
        }
        parts = [{**common, "img_suffix": suffix} for suffix in photos]
        for loader in LOADERS[name]:
            _put(cfg, loader, parts)
        if name == "val":
            _set_evaluators(cfg, "IoUMetric", {"iou_metrics": ["mIoU"]}, {})
    for pipeline in _pipelines(cfg):
        _renumber(pipeline, data)
    if data.ignore:
        values = ", ".join(map(str, data.ignore))
        notes.append(f"labels of value {values} are of no class, and the others become 0 to {len(data.classes) - 1}")
    return len(data.classes)


def _detection(cfg: Config, data: OwnData, notes: list[str]) -> int:
    """Set the data loaders and evaluators of mmdetection. Returns the number of classes."""
    if any("Panoptic" in kind_of(leaf) for leaf in _leaves(cfg.train_dataloader.dataset)):
        raise ValueError(
            f"{cfg.filename} learns from panoptic files, and COCO's format of objects has none of its stuff"
        )
    files = {}
    for name, split in _splits(data):
        loading = functools.partial(_loading_of, cfg=cfg, data=data, split=split, loader=LOADERS[name][0])
        files[split.annotations] = read_categories(split.annotations, loading)
    if len(set(map(tuple, files.values()))) > 1:
        first, second = files
        raise ValueError(f"{first} and {second} have different classes, or in another order")
    classes = choose_classes(data, next(iter(files.values())))
    notes.append(f"{len(classes)} classes: {', '.join(classes)}")
    metric = ["bbox", "segm"] if any(step.get("with_mask") for step in steps_of(_pipelines(cfg))) else ["bbox"]
    for name, split in _splits(data):
        notes.append(f"{name}: {split.annotations} with photos in {split.images}")
        for loader in LOADERS[name]:
            _put(cfg, loader, [_coco_part(split, classes)])
        if name == "val":
            _set_evaluators(cfg, "CocoMetric", {"metric": metric}, {"ann_file": str(split.annotations)})
    return len(classes)


def _coco_part(split: Split, classes: list[str]) -> dict[str, Any]:
    return {
        "type": "CocoDataset",
        "metainfo": {"classes": classes, "palette": palette(len(classes))},
        "ann_file": str(split.annotations),
        "data_prefix": {"img": str(split.images)},
    }


def _loading_of(facts: Facts, cfg: Config, data: OwnData, split: Split, loader: str) -> Loading:
    """How the dataset that takes a loader's place will load a file, once its classes are known."""
    names = [name for _, name, *_ in facts["categories"]]
    classes = [name for name in names if data.classes is None or name in data.classes]
    loader_cfg = cfg.get(f"{loader}_dataloader")
    kept = _kept(loader_cfg) if loader_cfg else {}
    return coco_loading({**_coco_part(split, classes), **kept}, _KINDS[data.kind][0])


def _classification(cfg: Config, data: OwnData, notes: list[str]) -> int:
    """Set the data loaders and evaluators of mmpretrain. Returns the number of classes."""
    found = {name: list_classes(split.images) for name, split in _splits(data)}
    classes = next(iter(found.values()))
    for name, split in _splits(data):
        # mmpretrain numbers the folders of each split by itself.
        for lacking in sorted(set(classes) ^ set(found[name])):
            where, other = (split, data.train) if lacking in classes else (data.train, split)
            raise ValueError(
                f"{where.images} has no folder {lacking!r}, which {other.images} has; make one, which may be empty"
            )
    notes.append(f"{len(classes)} classes: {', '.join(classes)}")
    for name, split in _splits(data):
        notes.append(f"{name}: a folder a class in {split.images}")
        part = {
            "type": "CustomDataset",
            "metainfo": {"classes": classes},
            "data_prefix": str(split.images),
            "with_label": True,
            "extensions": sorted(IMAGE_SUFFIXES),
        }
        for loader in LOADERS[name]:
            _put(cfg, loader, [part])
        if name == "val":
            _set_evaluators(cfg, "Accuracy", {"topk": (1,)}, {})
    for evaluator in (cfg.get("val_evaluator"), cfg.get("test_evaluator")):
        if data.val and isinstance(evaluator, dict):
            best = evaluator.get("topk", 1)
            best = [best] if isinstance(best, int) else best
            evaluator["topk"] = tuple(k for k in best if k <= len(classes)) or (1,)
    for preprocessor in (cfg.get("data_preprocessor"), cfg.model.get("data_preprocessor")):
        if preprocessor and "num_classes" in preprocessor:  # To mix labels.
            preprocessor["num_classes"] = len(classes)
    return len(classes)


_KINDS: dict[str, tuple[str, str, Callable[[Config, OwnData, list[str]], int]]] = {
    "masks": ("mmseg", "label images (--train-labels)", _segmentation),
    "objects": ("mmdet", "objects in COCO's format (--train-json)", _detection),
    "folders": ("mmpretrain", "folders of classes (--train-images alone)", _classification),
}
"""For each kind of data the framework that learns from it, what it is, and what puts it into a config."""


def read_categories(annotations: Path, loading: Callable[[Facts], Loading] | None = None) -> list[str]:
    """Names of the classes of a COCO file, in its order, which is mmdetection's; `loading` is as `coco_facts` takes it.

    Raises `ValueError`.
    """
    facts = coco_facts(str(annotations), loading)
    if "broken" in facts:
        raise ValueError(f"{annotations} {facts['broken']}")
    odd = next(
        (what for what in facts["odd"] if what.startswith("categories without") or what == "category names"), None
    )
    if odd is not None:
        raise ValueError(f"{annotations} has {odd}: {', '.join(facts['odd'][odd][1])}")
    return [name for _, name, *_ in facts["categories"]]


def choose_classes(data: OwnData, names: list[str]) -> list[str]:
    """Of the classes of a COCO file those that the user names, in the file's order; all if none are named."""
    for name in data.classes or ():
        if name not in names:
            raise ValueError(f"--classes names {name!r}, which {data.train or data.val} lacks.{closest(name, names)}")
    return [name for name in names if data.classes is None or name in data.classes]


def _splits(data: OwnData) -> list[tuple[str, Split]]:
    return [(name, split) for name, split in (("train", data.train), ("val", data.val)) if split]


def _put(cfg: Config, loader: str, parts: list[dict[str, Any]]) -> None:
    """Put datasets in the place of a data loader's, which keep the pipeline and the filter of its first one."""
    loader_cfg = cfg.get(f"{loader}_dataloader")
    if not loader_cfg:
        return
    own = [copy.deepcopy({**part, **_kept(loader_cfg)}) for part in parts]
    new = own[0] if len(own) == 1 else {"type": "ConcatDataset", "datasets": own}
    loader_cfg.dataset = _replace_leaf(loader_cfg.dataset, new)


def _kept(loader_cfg: Mapping) -> dict[str, Any]:
    """What stays of a data loader's first dataset."""
    leaf = next(_leaves(loader_cfg["dataset"]))
    return {k: leaf[k] for k in ("pipeline", "filter_cfg", "test_mode", "indices", "lazy_init") if k in leaf}


def _leaves(dataset: Mapping) -> Iterator[Mapping]:
    if "dataset" in dataset:
        yield from _leaves(dataset["dataset"])
    elif "datasets" in dataset:
        for part in dataset["datasets"]:
            yield from _leaves(part)
    else:
        yield dataset


def _replace_leaf(dataset: Mapping, new: dict[str, Any]) -> Any:
    """A dataset with the innermost replaced; wrappers such as `RepeatDataset` stay, and of several parts none does."""
    if "dataset" not in dataset:
        return new
    return {**dataset, "dataset": _replace_leaf(dataset["dataset"], new)}


def _set_evaluators(cfg: Config, kind: str, default: dict[str, Any], fixed: dict[str, Any]) -> None:
    """Leave the evaluators of a kind, or set one; with fixed values in it."""
    for name in ("val_evaluator", "test_evaluator"):
        found = cfg.get(name) or []
        found = [dict(e) for e in (found if isinstance(found, list | tuple) else [found]) if kind_of(e) == kind]
        evaluators = [{**evaluator, **fixed} for evaluator in found or [{"type": kind, **default}]]
        for evaluator in evaluators:
            for key in ("format_only", "outfile_prefix", "output_dir", "backend_args"):
                evaluator.pop(key, None)
        cfg[name] = evaluators[0] if len(evaluators) == 1 else evaluators


def _drop_evaluation_of_others(cfg: Config, data: OwnData, notes: list[str]) -> None:
    """Take out the evaluation on the config's own data, where the user has none to evaluate on."""
    if data.val or not data.train:
        return
    for part in ("dataloader", "evaluator", "cfg"):
        for split in ("val", "test"):
            cfg[f"{split}_{part}"] = None
    (cfg.get("default_hooks", {}).get("checkpoint") or {}).pop("save_best", None)
    notes.append("nothing is evaluated: there is no --val-images")


def _pipelines(cfg: Config) -> list:
    """Every pipeline of the data loaders, and that of the augmented test."""
    found = [pipeline for name in ("train", "val", "test") for pipeline in pipelines_of(cfg.get(f"{name}_dataloader"))]
    return [*found, cfg.tta_pipeline] if cfg.get("tta_pipeline") else found


def _renumber(pipeline: list, data: OwnData) -> None:
    """Let labels be renumbered wherever they are loaded, if they have to be."""
    for step in steps_of(pipeline):
        if kind_of(step) == "LoadAnnotations":
            step.pop("reduce_zero_label", None)
    if not data.ignore:
        return
    own = {"type": "RenumberLoadedLabels", "values": data.label_values, "ignore": list(data.ignore)}
    lists = [pipeline, *(part for step in steps_of(pipeline) for part in step.get("transforms", ()))]
    for steps in lists:
        if isinstance(steps, list):
            for i in reversed(range(len(steps))):
                if isinstance(steps[i], dict) and kind_of(steps[i]) == "LoadAnnotations":
                    steps.insert(i + 1, type(steps[i])(own))


def _set_heads(model: Mapping, classes: int, notes: list[str]) -> None:
    """Give every head the number of classes, and take out what its losses weigh other classes by."""
    for name, part in _parts(model, "model"):
        head = name.rpartition(".")[2].partition("[")[0]
        if not (head == "head" or head.endswith("_head")) or head in OF_OTHER_THINGS:
            continue
        before = part.get("num_classes")
        if "num_things_classes" in part:
            before = part["num_things_classes"] + part.get("num_stuff_classes", 0)
            part["num_things_classes"], part["num_stuff_classes"] = classes, 0
        elif isinstance(before, int):
            part["num_classes"] = classes
        if before is not None:
            notes.append(f"{name} has {classes} classes (had {before})")
            for loss_name, loss in _parts(part, name):
                _fit_weights(loss_name, loss, before, classes, notes)


def _fit_weights(name: str, loss: dict, before: int, classes: int, notes: list[str]) -> None:
    """Repeat a class weight that was the same for all classes, with that of "no object" behind; others are left out."""
    weights = loss.get("class_weight")
    if not isinstance(weights, list | tuple | str) or not len(weights):
        return
    of_classes = list(weights[:before])
    if not isinstance(weights, str) and len(set(of_classes)) == 1 and len(weights) in (before, before + 1):
        loss["class_weight"] = of_classes[:1] * classes + list(weights[before:])
    else:
        del loss["class_weight"]
        notes.append(f"{name}.class_weight is left out: it was for other classes")


def _parts(part: Any, name: str) -> Iterator[tuple[str, dict]]:
    if isinstance(part, dict):
        yield name, part
        for key, value in part.items():
            yield from _parts(value, f"{name}.{key}")
    elif isinstance(part, list | tuple):
        for i, value in enumerate(part):
            yield from _parts(value, f"{name}[{i}]")
