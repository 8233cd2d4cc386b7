"""The sizes in a config's pipelines and model, brought to those of a user's photos."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config


def set_size(cfg: Config, size: tuple[int, int], notes: list[str]) -> None:
    """Bring all sizes of the pipelines, the model's input and its sliding window to a width and height.

    Raises `ValueError` for a classifier, whose photos become squares, if width and height differ.
    """
    loaders = [cfg.get(f"{name}_dataloader") for name in ("test", "val", "train")]
    steps = [step for loader in loaders for step in steps_of(pipelines_of(loader))]
    usual = next((_pair(step["scale"]) for step in steps if kind_of(step) == "Resize" and "scale" in step), size)
    crops = [_pair(step["crop_size"]) for step in steps if kind_of(step) == "RandomCrop"]
    segments = cfg.default_scope == "mmseg"
    base = crops[0] if segments and crops else usual
    if cfg.default_scope == "mmpretrain":
        base = next((_pair(step["crop_size"]) for step in steps if kind_of(step) == "CenterCrop"), size)
        if size[0] != size[1]:
            raise ValueError(f"a classifier's photos are cropped to squares, such as --size {size[1]}")
    before = copy.deepcopy(steps)
    for step in steps:
        _resize(step, size, base, exact=segments)
    for step in steps_of(cfg.get("tta_pipeline") or []):
        _resize_augmented(step, size, usual)
    if segments:
        _set_model_size(cfg, size)
    for augment in (cfg.model.get("data_preprocessor") or {}).get("batch_augments") or ():
        _resize(augment, size, base, exact=False)
    changed = [kind_of(step) for step, old in zip(steps, before, strict=True) if step != old]
    notes.append(f"sizes for {size[0]}x{size[1]}: {', '.join(dict.fromkeys(changed)) or 'there were none to set'}")


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _resize(step: dict, size: tuple[int, int], usual: tuple[int, int], *, exact: bool) -> None:
    """Change the sizes in a transform: to the new one if `exact`, else as much as the usual one changes."""
    factors = max(size) / max(usual), min(size) / min(usual)
    kind = kind_of(step)
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
    if kind_of(step) != "Resize":
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


def pipelines_of(loader: Mapping | None) -> list:
    """The pipelines of a data loader's datasets, one after the other."""
    found = []
    dataset = (loader or {}).get("dataset")
    while dataset:
        found += [part["pipeline"] for part in (dataset, *dataset.get("datasets", ())) if part.get("pipeline")]
        dataset = dataset.get("dataset")
    return found


def kind_of(part: Mapping) -> str:
    """The name of a part's type, which may also be a class, or have a scope or a module before it."""
    kind = part.get("type")
    return getattr(kind, "__name__", str(kind)).rpartition(".")[2]


def steps_of(part: Any) -> Iterator[dict]:
    """Every transform of a pipeline, those within others, too."""
    if isinstance(part, list | tuple):
        for value in part:
            yield from steps_of(value)
    elif isinstance(part, dict):
        yield part
        yield from steps_of(part.get("transforms", ()))
