"""A race: backbones of equal size learn the same data from random weights, in the same detector or segmenter."""

from __future__ import annotations

import copy
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModule
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

import focalnet_backbone.benchmark.twins.openmmlab  # noqa: F401  (registers ConvNeXt)
from focalnet_backbone.analysis import count
from focalnet_backbone.openmmlab.data import training_size
from focalnet_backbone.openmmlab.runners import CheckData, load_config, require
from focalnet_backbone.openmmlab.training import build_training_runner
from focalnet_backbone.own_data import OwnData
from focalnet_backbone.system.inputs import read_json
from focalnet_backbone.system.outputs import result_file

# Widths and depths are such that all have 1.3 M parameters: FocalNet's blocks and Swin's have as many at equal width.
# Each is as published, at a smaller size, but for two things: ConvNeXt's layer scale would begin at 1e-6, and keep its
# blocks shut for most of so short a training; and nothing is dropped at random.
ENTRANTS: dict[str, dict[str, Any]] = {
    "focalnet": {
        "type": "FocalNet",
        "embed_dim": 24,
        "depths": [2, 2, 2, 2],
        "focal_levels": [3, 3, 3, 3],
        "focal_windows": [3, 3, 3, 3],
        "drop_path_rate": 0.0,
    },
    "swin": {
        "type": "SwinTransformer",
        "embed_dims": 24,
        "depths": [2, 2, 2, 2],
        "num_heads": [1, 2, 4, 8],
        "drop_path_rate": 0.0,
    },
    "convnext": {"type": "TorchvisionConvNeXt", "size": None, "width": 24, "depths": [3, 3, 3, 3], "layer_scale": 1.0},
    "resnet": {
        "type": "ResNet",
        "depth": 18,
        "stem_channels": 22,
        "base_channels": 22,
        "norm_eval": False,
        "frozen_stages": -1,
    },
}
"""The backbones that race, by name, as configs of mmsegmentation and mmdetection have them."""

IMPORTS = ["focalnet_backbone.openmmlab", "focalnet_backbone.benchmark.twins.openmmlab"]

METRICS = {"mIoU": "mIoU", "coco/bbox_mAP": "box AP", "coco/segm_mAP": "mask AP", "coco_panoptic/PQ": "PQ"}
"""What is read of an evaluation, under which name; all in percent."""


@dataclass(frozen=True)
class Race:
    """What is raced on.

    Attributes:
        name: of the race, and of its folder.
        config: a config of mmsegmentation or mmdetection, whose backbone is replaced.
        folder: for what is written.
        own_data: what to train and evaluate on in place of the config's data.
        iterations: of each training; None for the config's.
        options: values that replace the config's, by dotted keys.
    """

    name: str
    config: Path
    folder: Path
    own_data: OwnData | None = None
    iterations: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def result(self, entrant: str, seed: int) -> Path:
        """Where the result of one training is kept."""
        return self.folder / self.name / f"{entrant}-{seed}.json"

    def settings(self, entrant: str) -> dict[str, Any]:
        """What must be alike for an earlier result to stand."""
        return {
            "config": self.config.stem,
            "iterations": self.iterations,
            "data": repr(self.own_data) if self.own_data else None,
            "options": {name: repr(value) for name, value in self.options.items()},
            "backbone": ENTRANTS[entrant],
        }


class TrainingTime(Hook):
    """Adds up the processor's time in training steps, without the loading of data, evaluation and other programs."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.start = 0.0

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self.start = _now()

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Stop it."""
        self.steps.append(_now() - self.start)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def run(race: Race, entrant: str, seed: int, check: CheckData | None = None) -> dict[str, Any]:
    """Train and evaluate one backbone with one seed, going on where an earlier training of it was interrupted.

    Its result is kept in `race.result(entrant, seed)`, and returned: `"metrics"` in percent by name, `"parameters"` and
    `"macs"` of the backbone, for one image of the training's size, and `"seconds"` of a training step (the median; of
    the processor, or of the clock with a GPU).

    Raises what `build_training_runner` raises, and `ValueError` if the config has no four maps of a backbone.
    """
    config = load_config(race.config, race.options, race.own_data)
    require(config, "model", "train_dataloader", "train_cfg", "val_dataloader", "val_evaluator")
    size = training_size(config)
    if size is None:
        raise ValueError(f"{race.config} names no size of the images that it trains on")
    folder = race.result(entrant, seed).with_suffix("")
    options = race.options | make_options(config, entrant, seed, race.iterations)
    runner = build_training_runner(
        race.config,
        work_dir=str(folder),
        options=options,
        resume="auto",
        own_data=race.own_data,
        check=check,
    )
    clock = TrainingTime()
    runner.register_hook(clock, priority="VERY_LOW")
    runner.train()
    evaluation = _read_evaluation(runner) or runner.val_loop.run()
    metrics = {METRICS[name]: _percent(name, value) for name, value in evaluation.items() if name in METRICS}
    parameters, macs = count_backbone(config, entrant, size)
    result = {
        "race": race.name,
        "entrant": entrant,
        "seed": seed,
        "settings": race.settings(entrant),
        "metrics": metrics,
        "parameters": parameters,
        "macs": macs,
        "seconds": statistics.median(clock.steps) if clock.steps else None,
        "iterations": runner.max_iters,
    }
    with result_file(race.result(entrant, seed)) as unfinished:
        unfinished.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


def read_result(race: Race, entrant: str, seed: int) -> dict[str, Any] | None:
    """The result of an earlier training, if there is one. Raises `ValueError` if it had other settings."""
    path = race.result(entrant, seed)
    if not path.exists():
        return None
    try:
        result = read_json(path, most=None)
        settings = result["settings"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} is no result of a race") from None
    expected = race.settings(entrant)
    for name in expected:
        if settings.get(name) != expected[name]:
            made = f"{path} was made with {name} {settings.get(name)}, not {expected[name]}"
            raise ValueError(f"{made}; give the race another --name or --out, or delete it")
    return result


def make_options(config: Config, entrant: str, seed: int, iterations: int | None) -> dict[str, Any]:
    """What replaces a config's values, by dotted keys, so that an entrant's backbone trains in it."""
    backbone = ENTRANTS[entrant]
    options: dict[str, Any] = {
        "custom_imports.imports": IMPORTS,
        "model.backbone": {"_delete_": True, **backbone},
        "randomness.seed": seed,
        "load_from": None,
        "default_hooks.checkpoint.max_keep_ckpts": 1,
        **_fit_channels(config, _channels(config, entrant)),
    }
    # Within one process, data are loaded exactly alike after an interruption.
    for loader in ("train_dataloader", "val_dataloader"):
        options |= {f"{loader}.num_workers": 0, f"{loader}.persistent_workers": False}
    if iterations:
        options |= _shorten(config, iterations)
    return options


def _channels(config: Config, entrant: str) -> list[int]:
    """Of the four maps, found by a small image."""
    with torch.no_grad():
        maps = build_backbone(config, entrant)(torch.zeros(1, 3, 64, 64))
    return [features.shape[1] for features in maps]


def build_backbone(config: Config, entrant: str) -> BaseModule:
    """An entrant's backbone, in the framework of a config, with random weights."""
    import_modules_from_strings(f"{config.default_scope}.models")
    with DefaultScope.overwrite_default_scope(config.default_scope):
        backbone = MODELS.build(copy.deepcopy(ENTRANTS[entrant]))
    backbone.eval()  # What it returns is not the model, for some of the hosts'.
    return backbone


def _fit_channels(config: Config, channels: list[int]) -> dict[str, Any]:
    """The channels that necks and heads of a config take, by dotted keys."""
    model = config.model
    if model.get("neck"):
        if not isinstance(model.neck, dict) or len(model.neck.in_channels) != len(channels):
            raise ValueError(f"{config.filename} has no neck that takes four maps of the backbone")
        return {"model.neck.in_channels": channels}
    options: dict[str, Any] = {}
    for name, head in _heads(model):
        taken, index = head.get("in_channels"), head.get("in_index", -1)
        if isinstance(taken, int) and isinstance(index, int):
            options[f"model.{name}.in_channels"] = channels[index]
        elif isinstance(taken, list | tuple) and len(taken) == len(channels):
            options[f"model.{name}.in_channels"] = channels
    if not options:
        raise ValueError(f"{config.filename} has no neck or head that takes four maps of the backbone")
    return options


def _heads(model: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in ("decode_head", "auxiliary_head", "panoptic_head"):
        if isinstance(model.get(name), dict):
            yield name, model[name]


def _shorten(config: Config, iterations: int) -> dict[str, Any]:
    """A training's length and schedule, by dotted keys. Raises `ValueError` for one that counts in epochs."""
    before = config.train_cfg.get("max_iters")
    if not before:
        raise ValueError(f"{config.filename} counts in epochs; --iterations is for configs that count in iterations")
    schedule = [dict(scheduler) for scheduler in config.param_scheduler]
    for scheduler in schedule:
        for key in ("begin", "end", "T_max"):
            if scheduler.get(key):
                scheduler[key] = max(1, round(scheduler[key] * iterations / before))
        if scheduler.get("end"):  # However short the training is.
            scheduler["end"] = max(scheduler["end"], scheduler.get("begin", 0) + 1)
    return {
        "train_cfg.max_iters": iterations,
        "train_cfg.val_interval": iterations,
        "param_scheduler": schedule,
        "default_hooks.checkpoint.interval": max(1, iterations // 4),
    }


def count_backbone(config: Config, entrant: str, size: tuple[int, int]) -> tuple[int, int]:
    """Parameters and multiply-accumulates of an entrant's backbone for one image of a height and width."""
    return count(build_backbone(config, entrant), torch.zeros(1, 3, *size))


def _read_evaluation(runner: Runner) -> dict[str, float]:
    """What the evaluation at the end of the training found, if there was one in this process."""
    scalars = runner.message_hub.log_scalars
    return {name[4:]: values.current() for name, values in scalars.items() if name.startswith("val/")}


def _percent(name: str, value: float) -> float:
    return round(100 * value if name.startswith("coco/") else value, 2)
