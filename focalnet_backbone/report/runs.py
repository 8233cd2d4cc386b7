"""What a training of detectron2, mmdetection or mmsegmentation left in its folder, whether it has ended or not."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from focalnet_backbone.system.inputs import parse_json, read_yaml

Curve = list[tuple[int, float]]
"""Iterations and values."""

_NO_LOSS = ("loss_scale",)
_TIMES = {"time": "time", "iter_time": "time", "data_time": "data_time"}
_VALIDATION = re.compile(
    r"^(bbox|segm|panoptic_seg|sem_seg|keypoints|coco|coco_panoptic|accuracy|(single|multi)-label|retrieval)/|^[am](IoU|Acc|Dice|Fscore|Recall)$|^aAcc$"
)


@dataclass
class Run:
    """One training.

    Attributes:
        name: what to call it.
        folder: where it wrote.
        host: "detectron2" or "mmengine".
        losses: each loss by its name.
        rates: learning rates by name.
        times: seconds an iteration ("time") and of them waiting for data ("data_time").
        memory: megabytes at most, on a GPU; empty on a CPU.
        validation: each measure of the validation by its name; the last value may be of a run that ended there.
        planned: iterations that it was to have; None if its config does not tell.
        config: the config's values by dotted key.
    """

    name: str
    folder: Path
    host: str
    losses: dict[str, Curve] = field(default_factory=dict)
    rates: dict[str, Curve] = field(default_factory=dict)
    times: dict[str, Curve] = field(default_factory=dict)
    memory: Curve = field(default_factory=list)
    validation: dict[str, Curve] = field(default_factory=dict)
    planned: int | None = None
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """The last iteration that was logged."""
        return max((curve[-1][0] for curves in (self.losses, self.validation) for curve in curves.values()), default=0)

    @property
    def state(self) -> str:
        """How far it has come."""
        if self.planned is None:
            return f"{self.done} iterations"
        names = ["model_final", f"iter_{self.planned}", f"epoch_{self.config.get('train_cfg.max_epochs')}"]
        ended = self.done >= self.planned or any((self.folder / f"{name}.pth").is_file() for name in names)
        return f"{self.done} of {self.planned} iterations, {'ended' if ended else 'not ended'}"


def read_run(folder: str | Path) -> Run:
    """Read the logs of a training; lines that it is just writing, or was killed while writing, are left out.

    Raises:
        FileNotFoundError: there is no such folder, or no training's log in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    metrics = folder / "metrics.json"
    logs = sorted(folder.glob("*/vis_data/scalars.json"))
    if metrics.is_file():
        run = Run(folder.name, folder, "detectron2", config=_read_yaml(folder / "config.yaml"))
        _read_detectron2(run, _lines(metrics))
    elif logs or list(folder.glob("*/vis_data/config.py")):
        run = Run(folder.name, folder, "mmengine")
        for log in logs:
            _read_mmengine(run, _lines(log))
        _read_mmengine_config(run)
    else:
        raise FileNotFoundError(
            f"no training in {folder}: neither detectron2's metrics.json nor mmengine's */vis_data/scalars.json"
        )
    for curves in (run.losses, run.rates, run.times, run.validation, {"memory": run.memory}):
        for curve in curves.values():
            _straighten(curve)
    return run


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    if not isinstance(values, Mapping):
        return {prefix: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def differences(configs: Iterable[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """Keys in which configs differ, sorted, with the value of each; None for one that has no such key."""
    configs = list(configs)
    keys = sorted({key for config in configs for key in config})
    rows = [(key, [config.get(key) for config in configs]) for key in keys]
    return [(key, values) for key, values in rows if any(value != values[0] for value in values)]


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = parse_json(line)
        except ValueError:
            continue
        if isinstance(values, dict):
            yield values


def _read_detectron2(run: Run, lines: Iterable[dict[str, Any]]) -> None:
    for values in lines:
        # Counted from 0 there; a value belongs to the weights after the iteration.
        _sort(run, values, int(values.get("iteration", -1)) + 1)
    run.planned = _int(run.config.get("SOLVER.MAX_ITER", run.config.get("train.max_iter")))


def _read_mmengine(run: Run, lines: Iterable[dict[str, Any]]) -> None:
    iteration = 0
    for values in lines:
        # A validation's step counts epochs where the training does; it belongs where the training stands.
        iteration = _int(values.get("iter")) or iteration
        _sort(run, values, iteration if iteration else _int(values.get("step")) or 0)


def _read_mmengine_config(run: Run) -> None:
    from mmengine.config import Config

    files = sorted(run.folder.glob("*.py"), key=lambda path: path.stat().st_mtime)
    if not files:
        return
    run.config = flatten(Config.fromfile(files[-1], import_custom_modules=False).to_dict())
    run.planned = _int(run.config.get("train_cfg.max_iters"))
    epochs, last = _int(run.config.get("train_cfg.max_epochs")), max(run.losses.values(), key=len, default=None)
    if run.planned is None and epochs and last:
        # Each logged line tells its epoch, from which the length of one follows.
        logged = [values for log in run.folder.glob("*/vis_data/scalars.json") for values in _lines(log)]
        ends = [(int(v["epoch"]), int(v["iter"])) for v in logged if v.get("epoch") and v.get("iter")]
        longest = max((it / epoch for epoch, it in ends), default=0)
        run.planned = math.ceil(longest) * epochs or None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = read_yaml(path)
    except (OSError, ValueError):
        return {}
    return flatten(values) if isinstance(values, dict) else {}


def _sort(run: Run, values: Mapping[str, Any], iteration: int) -> None:
    """Put one line's values where they belong."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        curve = _curve_of(run, name)
        if curve is not None:
            curve.append((iteration, float(value)))


def _curve_of(run: Run, name: str) -> Curve | None:
    last = name.rpartition("/")[2].rpartition(".")[2]
    if _VALIDATION.match(name):
        return run.validation.setdefault(name, [])
    if "loss" in last and last not in _NO_LOSS:
        return run.losses.setdefault("loss" if name == "total_loss" else name, [])
    if name == "lr" or name.startswith("lr/"):
        return run.rates.setdefault(name, [])
    if name in _TIMES:
        return run.times.setdefault(_TIMES[name], [])
    return run.memory if name in ("memory", "max_mem") else None


def _straighten(curve: Curve) -> None:
    """Order a curve; of an iteration that a resumed training did again, the later value counts."""
    curve[:] = sorted(dict(curve).items())


def _int(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
