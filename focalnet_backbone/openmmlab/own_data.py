"""A user's own data in the place of a config's, in configs of mmsegmentation and mmdetection."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import TRANSFORMS

from focalnet_backbone.own_data import UNLABELLED, OwnData, Split, find_suffixes, palette
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
        cfg: a config of mmsegmentation (for label images) or mmdetection (for COCO files); it is changed.
        data: what to train and evaluate on.

    Returns:
        A line for each thing that was set.

    Raises:
        FileNotFoundError: there are no photos or no labels.
        ValueError: the config is for other data, or the classes of COCO files are wrong.
    """
    scope = cfg.get("default_scope")
    wanted = {True: "mmseg", False: "mmdet"}[data.is_masks]
    if scope != wanted:
        given = "label images (--train-labels)" if data.is_masks else "objects in COCO's format (--train-json)"
        raise ValueError(f"{cfg.filename} is a config of {scope}, which does not learn from {given}, as {wanted} does")
    notes: list[str] = []
    prepare = _segmentation if data.is_masks else _detection
    classes = prepare(cfg, data, notes)
    _set_heads(cfg.model, classes, notes)
    if data.size:
        _set_size(cfg, data.size, notes)
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
        photos, label = find_suffixes(split.images, split.labels)
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
    if any("Panoptic" in _kind(leaf) for leaf in _leaves(cfg.train_dataloader.dataset)):
        raise ValueError(
            f"{cfg.filename} learns from panoptic files, and COCO's format of objects has none of its stuff"
        )
    files = {split.annotations: read_categories(split.annotations) for _, split in _splits(data)}
    if len(set(map(tuple, files.values()))) > 1:
        first, second = files
        raise ValueError(f"{first} and {second} have different classes, or in another order")
    classes = choose_classes(data, next(iter(files.values())))
    metainfo = {"classes": classes, "palette": palette(len(classes))}
    notes.append(f"{len(classes)} classes: {', '.join(classes)}")
    metric = ["bbox", "segm"] if any(step.get("with_mask") for step in _steps(_pipelines(cfg))) else ["bbox"]
    for name, split in _splits(data):
        notes.append(f"{name}: {split.annotations} with photos in {split.images}")
        part = {
            "type": "CocoDataset",
            "metainfo": metainfo,
            "ann_file": str(split.annotations),
            "data_prefix": {"img": str(split.images)},
        }
        for loader in LOADERS[name]:
            _put(cfg, loader, [part])
        if name == "val":
            _set_evaluators(cfg, "CocoMetric", {"metric": metric}, {"ann_file": str(split.annotations)})
    return len(classes)


def read_categories(annotations: Path) -> list[str]:
    """Names of the classes of a COCO file, in its order, which is mmdetection's. Raises `ValueError`."""
    try:
        content = json.loads(annotations.read_text(encoding="utf-8"))
        names = [category["name"] for category in content["categories"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{annotations} is not in COCO's format: {type(error).__name__}: {error}") from error
    if not names:
        raise ValueError(f"{annotations} names no class")
    return names


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
    kept = ("pipeline", "filter_cfg", "test_mode", "indices", "lazy_init")
    leaf = next(_leaves(loader_cfg.dataset))
    keep = {key: leaf[key] for key in kept if key in leaf}
    own = [copy.deepcopy({**part, **keep}) for part in parts]
    new = own[0] if len(own) == 1 else {"type": "ConcatDataset", "datasets": own}
    loader_cfg.dataset = _replace_leaf(loader_cfg.dataset, new)


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
        found = [dict(e) for e in (found if isinstance(found, list | tuple) else [found]) if _kind(e) == kind]
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
    found = [pipeline for name in ("train", "val", "test") for pipeline in _pipelines_of(cfg.get(f"{name}_dataloader"))]
    return [*found, cfg.tta_pipeline] if cfg.get("tta_pipeline") else found


def _kind(part: Mapping) -> str:
    """The name of a part's type, which may also be a class, or have a scope or a module before it."""
    kind = part.get("type")
    return getattr(kind, "__name__", str(kind)).rpartition(".")[2]


def _steps(part: Any) -> Iterator[dict]:
    """Every transform of a pipeline, those within others, too."""
    if isinstance(part, list | tuple):
        for value in part:
            yield from _steps(value)
    elif isinstance(part, dict):
        yield part
        yield from _steps(part.get("transforms", ()))


def _renumber(pipeline: list, data: OwnData) -> None:
    """Let labels be renumbered wherever they are loaded, if they have to be."""
    for step in _steps(pipeline):
        if _kind(step) == "LoadAnnotations":
            step.pop("reduce_zero_label", None)
    if not data.ignore:
        return
    own = {"type": "RenumberLoadedLabels", "values": data.label_values, "ignore": list(data.ignore)}
    lists = [pipeline, *(part for step in _steps(pipeline) for part in step.get("transforms", ()))]
    for steps in lists:
        if isinstance(steps, list):
            for i in reversed(range(len(steps))):
                if isinstance(steps[i], dict) and _kind(steps[i]) == "LoadAnnotations":
                    steps.insert(i + 1, type(steps[i])(own))


def _set_heads(model: Mapping, classes: int, notes: list[str]) -> None:
    """Give every head the number of classes, and take out what its losses weigh other classes by."""
    for name, part in _parts(model, "model"):
        head = name.rpartition(".")[2].partition("[")[0]
        if not head.endswith("_head") or head in OF_OTHER_THINGS:
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


def _set_size(cfg: Config, size: tuple[int, int], notes: list[str]) -> None:
    """Bring all sizes of the pipelines, the model's input and its sliding window to a width and height."""
    loaders = [cfg.get(f"{name}_dataloader") for name in ("test", "val", "train")]
    steps = [step for loader in loaders for step in _steps(_pipelines_of(loader))]
    usual = next((_pair(step["scale"]) for step in steps if _kind(step) == "Resize" and "scale" in step), size)
    crops = [_pair(step["crop_size"]) for step in steps if _kind(step) == "RandomCrop"]
    segments = cfg.default_scope == "mmseg"
    base = crops[0] if segments and crops else usual
    before = copy.deepcopy(steps)
    for step in steps:
        _resize(step, size, base, exact=segments)
    for step in _steps(cfg.get("tta_pipeline") or []):
        _resize_augmented(step, size, usual)
    if segments:
        _set_model_size(cfg, size)
    for augment in (cfg.model.get("data_preprocessor") or {}).get("batch_augments") or ():
        _resize(augment, size, base, exact=False)
    changed = [_kind(step) for step, old in zip(steps, before, strict=True) if step != old]
    notes.append(f"sizes for {size[0]}x{size[1]}: {', '.join(dict.fromkeys(changed)) or 'there were none to set'}")


def _pipelines_of(loader: Mapping | None) -> list:
    """The pipelines of a data loader's datasets, one after the other."""
    found = []
    dataset = (loader or {}).get("dataset")
    while dataset:
        found += [part["pipeline"] for part in (dataset, *dataset.get("datasets", ())) if part.get("pipeline")]
        dataset = dataset.get("dataset")
    return found


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _resize(step: dict, size: tuple[int, int], usual: tuple[int, int], *, exact: bool) -> None:
    """Change the sizes in a transform: to the new one if `exact`, else as much as the usual one changes."""
    factors = max(size) / max(usual), min(size) / min(usual)
    kind = _kind(step)
    if kind in ("Resize", "RandomResize") and "scale" in step and (exact or _pair(step["scale"]) == usual):
        step["scale"] = size
    elif exact and kind == "RandomCrop":
        step["crop_size"] = size[::-1]
    elif exact and kind == "Pad" and "size" in step:
        step["size"] = size[::-1]
    else:
        for key in ("scale", "scales", "img_scale", "crop_size", "size", "max_size"):
            if key in step:
                step[key] = _scaled(step[key], factors)


def _scaled(value: Any, factors: tuple[float, float]) -> Any:
    """A size, or a list of them, times factors for its long and its short side; what is not of pixels stays."""
    if isinstance(value, int):
        return max(1, round(value * factors[1]))
    if not isinstance(value, list | tuple) or any(isinstance(part, float) for part in value):
        return value
    if len(value) == 2 and all(isinstance(part, int) for part in value):
        long = max(value) if value[0] != value[1] else None
        return tuple(max(1, round(part * factors[0 if part == long else 1])) for part in value)
    return [_scaled(part, factors) for part in value]


def _resize_augmented(step: dict, size: tuple[int, int], usual: tuple[int, int]) -> None:
    """Change the scale of a test's augmentation, which is a multiple of the usual one."""
    if _kind(step) != "Resize":
        return
    ratio = step.pop("scale_factor", None)
    ratio = min(_pair(step["scale"])) / min(usual) if ratio is None else ratio
    if isinstance(ratio, int | float):
        step["scale"] = tuple(max(1, round(side * ratio)) for side in size)


def _set_model_size(cfg: Config, size: tuple[int, int]) -> None:
    """The size that mmsegmentation's models pad photos to in training, and look through in tests."""
    height_width = size[::-1]
    preprocessor = cfg.model.get("data_preprocessor") or {}
    if "size" in preprocessor:
        preprocessor["size"] = height_width
    test = cfg.model.get("test_cfg") or {}
    if test.get("mode") == "slide":
        test["crop_size"], test["stride"] = height_width, tuple(max(1, side * 2 // 3) for side in height_width)
    if "crop_size" in cfg:
        cfg.crop_size = height_width
    if isinstance(cfg.get("data_preprocessor"), dict) and "size" in cfg.data_preprocessor:
        cfg.data_preprocessor.size = height_width
