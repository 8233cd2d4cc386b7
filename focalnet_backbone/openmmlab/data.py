"""Whether a config's datasets are there, asked before anything expensive starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope


def check_datasets(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Raise unless every dataset of the data loaders has its files.

    Args:
        cfg: a config of mmsegmentation or mmdetection, whose default scope is set.
        loaders: keys of `cfg`, such as `"train_dataloader"`.

    Raises:
        FileNotFoundError: folders or annotation files are missing, or there is no image; the message gives the
            layout that is expected, or the image whose label is missing.
        ValueError: the first image and its label do not go together, or the model has not the classes of the data.
    """
    datasets = [dataset for name in loaders if cfg.get(name) for dataset in leaf_datasets(cfg[name].dataset)]
    expected = {}
    for dataset in datasets:
        expected.setdefault(dataset.get("data_root") or ".", []).extend(_parts(dataset))
    for root, parts in expected.items():
        if not all((Path(root) / part).exists() for part in parts):
            layout = ", ".join(dict.fromkeys(parts))
            raise FileNotFoundError(f"no dataset at {root} (in {Path.cwd()}). Expected in that folder: {layout}")
    for dataset in datasets:
        if dataset.get("ann_file"):
            _check_classes(dataset, cfg.model)
        else:
            _check_listed(dataset, cfg.model)


def leaf_datasets(dataset: Mapping) -> Iterator[Mapping]:
    """The datasets inside wrappers such as `RepeatDataset`, `ConcatDataset` and `MultiImageMixDataset`."""
    if "dataset" in dataset:
        yield from leaf_datasets(dataset["dataset"])
    elif "datasets" in dataset:
        for part in dataset["datasets"]:
            yield from leaf_datasets(part)
    else:
        yield dataset


def name_damaged_files(dataset: Any) -> None:
    """Let a built dataset's transforms that load files say which file they could not read.

    mmcv names a damaged image, but Pillow, which reads the labels of mmsegmentation, does not.
    """
    for part in getattr(dataset, "datasets", [getattr(dataset, "dataset", None)]):
        if part is not None:
            name_damaged_files(part)
    pipeline = getattr(dataset, "pipeline", None)
    for i, transform in enumerate(getattr(pipeline, "transforms", ())):
        if type(transform).__name__.startswith("Load"):
            pipeline.transforms[i] = _NamingLoader(transform)


class _NamingLoader:
    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any] | None:
        try:
            return self.transform(sample)
        except OSError as error:
            path = sample.get("seg_map_path") or sample.get("img_path")
            raise OSError(f"{path} cannot be read: {error}") from error

    def __repr__(self) -> str:
        return repr(self.transform)


def _parts(dataset: Mapping) -> list[str]:
    """Folders and files, relative to the dataset's root, that it reads."""
    names = [*dataset.get("data_prefix", {}).values(), dataset.get("ann_file")]
    return [name for name in names if isinstance(name, str) and name and "://" not in name]


def _check_listed(dataset: Mapping, model: Mapping) -> None:
    """Check a dataset that lists its folders: at least one image, a label for each, and classes that fit the model."""
    scope = DefaultScope.get_current_instance().scope_name
    loading = [transform for transform in dataset.get("pipeline", []) if "Load" in str(transform["type"])]
    samples = DATASETS.build({**dataset, "pipeline": loading, "serialize_data": False, "_scope_": scope})
    folder = Path(dataset.get("data_root") or ".") / dataset["data_prefix"].get("img_path", "")
    if len(samples) == 0:
        raise FileNotFoundError(f"no image in {folder} that {dataset['type']} reads (*{samples.img_suffix})")
    for sample in map(samples.get_data_info, range(len(samples))):
        label = sample.get("seg_map_path")
        if label is not None and not Path(label).exists():
            raise FileNotFoundError(f"{sample['img_path']} has no label: expected {label}")
    classes = samples.metainfo.get("classes") or ()
    for name in ("decode_head", "auxiliary_head"):
        heads = model.get(name) or []
        for head in heads if isinstance(heads, Sequence) else [heads]:
            if head.get("num_classes", len(classes)) < len(classes):
                raise ValueError(f"model.{name}.num_classes is {head['num_classes']}, but the data has {len(classes)}")
    if classes:
        _check_label(samples[0], len(classes), samples.ignore_index)


def _check_classes(dataset: Mapping, model: Mapping) -> None:
    """Check a dataset of boxes: mmdetection would train a model of other classes, and fail when it is evaluated.

    Its own `NumClassCheckHook` needs a built model, and refuses panoptic and language-guided ones that are right.
    """
    kind = dataset["type"]  # In configs that import what they name, the class itself.
    with DATASETS.switch_scope_and_registry(None) as registry:
        found = registry.get(kind) if isinstance(kind, str) else kind
    info = {**getattr(found, "METAINFO", {}), **(dataset.get("metainfo") or {})}
    classes = info.get("thing_classes", info.get("classes"))
    if not isinstance(classes, Sequence) or isinstance(classes, str) or "language_model" in model:
        return
    roi_head = model.get("roi_head") or {}
    parts = {
        "model.bbox_head": model.get("bbox_head"),
        "model.roi_head.bbox_head": roi_head.get("bbox_head"),
        "model.roi_head.mask_head": roi_head.get("mask_head"),
    }
    for name, heads in parts.items():
        for head in heads if isinstance(heads, Sequence) else [heads or {}]:
            if head.get("num_classes", len(classes)) != len(classes):
                wrong = f"{name}.num_classes is {head['num_classes']}"
                raise ValueError(f"{wrong}, but the data has {len(classes)} (metainfo.classes)")


def _check_label(sample: Mapping, classes: int, ignored: int) -> None:
    """Check a loaded image and its label against each other."""
    if "img" not in sample or "gt_seg_map" not in sample:
        return
    label = sample["gt_seg_map"]
    if sample["img"].shape[:2] != label.shape:
        sizes = f"{label.shape} pixels, {sample['img_path']} {sample['img'].shape[:2]}"
        raise ValueError(f"{sample['seg_map_path']} has {sizes}")
    values = np.unique(label)
    foreign = values[(values >= classes) & (values != ignored)]
    if len(foreign):
        shift = " (after reduce_zero_label)" if sample.get("reduce_zero_label") else ""
        raise ValueError(
            f"{sample['seg_map_path']} has the value {foreign[0]}{shift}, but the data has {classes} classes; "
            f"pixels of none must be {ignored}"
        )
