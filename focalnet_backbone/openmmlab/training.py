"""A runner that trains, with everything checked that can be before a model is built."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from focalnet_backbone.openmmlab.backbone import FocalNet
from focalnet_backbone.openmmlab.resume import latest_checkpoint
from focalnet_backbone.openmmlab.runners import CheckData, build, prepare, require
from focalnet_backbone.openmmlab.schedules import prepare_schedules
from focalnet_backbone.openmmlab.weights import check_numbers, check_resumable, read_weights
from focalnet_backbone.own_data import OwnData
from focalnet_backbone.system.files import remove_unfinished
from focalnet_backbone.system.outputs import check_writable, claim, is_own

SAVE_ON_STOP = {"sigterm": ("SIGTERM",), "always": ("SIGTERM", "SIGINT"), "never": ()}
"""Signals at which a training saves a checkpoint before it ends, by what the tools call it."""

_CHECKPOINT = re.compile(r"(iter|epoch|best)_.*\.pth")


def build_training_runner(
    config: str | Path,
    *,
    work_dir: str | None = None,
    options: dict[str, Any] | None = None,
    launcher: str = "none",
    resume: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    check: CheckData | None = None,
    own_data: OwnData | None = None,
    save_on_stop: str = "sigterm",
    force: bool = False,
) -> Runner:
    """A runner that is ready to train, and that resumes exactly (see `ExactResumeHook`).

    Args:
        config: config file.
        work_dir: folder for logs and checkpoints; the config's or `work_dirs/NAME` by default.
        options: values that replace the config's, by dotted keys.
        launcher: "none", or what started the processes: "pytorch", "slurm" or "mpi".
        resume: a checkpoint, or "auto" for the last one in the working folder, if there is one.
        amp: whether to train in mixed precision.
        auto_scale_lr: whether to scale the learning rate to the batch size.
        check: is given the config and the names of the data loaders before anything expensive starts.
        own_data: what to train and evaluate on in place of the config's data.
        save_on_stop: which signals leave a checkpoint of the iteration in which they come, a key of `SAVE_ON_STOP`.
        force: whether to replace a user's files in the working folder.

    Raises:
        FileNotFoundError: the config, a dataset or the checkpoint is missing.
        FileExistsError: the working folder has files of a user's that the training would replace.
        ValueError: the config is wrong, or has not what an argument needs.
        CheckpointError: the checkpoint cannot be read.
    """
    cfg = prepare(config, work_dir, options, launcher, own_data)
    require(cfg, "model", "train_dataloader", "train_cfg", "optim_wrapper")
    if check:
        check(cfg, ("train_dataloader", "val_dataloader"))
    if amp:
        if not torch.cuda.is_available():
            raise ValueError("--amp needs a GPU, and there is none")
        cfg.optim_wrapper.update(type="AmpOptimWrapper", loss_scale="dynamic")
    if auto_scale_lr:
        if "base_batch_size" not in cfg.get("auto_scale_lr", {}):
            raise ValueError(f"--auto-scale-lr needs auto_scale_lr.base_batch_size in {config}")
        cfg.auto_scale_lr.enable = True
    _choose_start(cfg, resume)
    start = None
    if cfg.get("load_from"):
        start, _ = read_weights(cfg.load_from)
        if cfg.get("resume"):
            check_resumable(cfg.load_from)
    _save_for_exact_resume(cfg, SAVE_ON_STOP[save_on_stop])
    check_channels(cfg.model)
    _claim_work_dir(cfg, force=force)
    runner = build(cfg)
    if start is not None:
        check_numbers(runner.model, start, cfg.load_from)
    # What mmengine would build when training starts: a mistake in it is one of the config, too.
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    _ = runner.train_loop, runner.val_loop
    prepare_schedules(runner)
    return runner


def check_channels(model: dict[str, Any]) -> None:
    """Raise `ValueError` if what follows a FocalNet expects other channels than it gives."""
    if str((model.get("backbone") or {}).get("type")).rpartition(".")[-1] != "FocalNet":
        return
    # On the meta device, it takes no time and memory. What it warns of, it will again.
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        knobs = {key: value for key, value in model["backbone"].items() if key not in ("type", "init_cfg")}
        backbone = FocalNet(**knobs)
    given = list(backbone.channels.values())
    neck = model.get("neck")
    if neck:
        # Of several necks, the first takes the backbone's maps.
        expected = (neck[0] if isinstance(neck, list | tuple) else neck).get("in_channels")
        # Some count from the deepest map.
        if isinstance(expected, list | tuple) and list(expected) not in (given, given[::-1]):
            raise ValueError(f"model.neck.in_channels is {list(expected)}, but model.backbone gives {given}")
        return
    for name in ("decode_head", "auxiliary_head"):
        heads = model.get(name) or []
        for head in heads if isinstance(heads, list | tuple) else [heads]:
            expected, index = head.get("in_channels"), head.get("in_index", -1)
            if isinstance(expected, int) and isinstance(index, int):
                expected, index = [expected], [index]
            if not (isinstance(expected, list | tuple) and isinstance(index, list | tuple)):
                continue
            if not all(-len(given) <= i < len(given) for i in index):
                raise ValueError(f"model.{name}.in_index is {index}, but model.backbone gives {len(given)} maps")
            found = [given[i] for i in index]
            if list(expected) != found:
                raise ValueError(f"model.{name}.in_channels is {list(expected)}, but model.backbone gives {found}")


def _choose_start(cfg: Config, resume: str | None) -> None:
    """Set `load_from` and `resume` to what a training starts from: a checkpoint, or "auto" for the last one."""
    if resume not in (None, "auto"):
        cfg.load_from, cfg.resume = resume, True
    elif resume == "auto" or (cfg.get("resume") and not cfg.get("load_from")):
        last = latest_checkpoint(cfg.work_dir)
        cfg.resume = last is not None
        if last is not None:
            cfg.load_from = str(last)


def _claim_work_dir(cfg: Config, *, force: bool) -> None:
    """Check that mmengine, which asks nobody, will write over nothing of a user's in the working folder."""
    folder = Path(cfg.work_dir)
    dump = folder / Path(cfg.filename).name
    outputs = [(dump, "the config")]
    started_from = Path(cfg.get("load_from") or "")
    if not cfg.get("resume"):
        # Checkpoints of an earlier training are replaced, but not what only looks like them.
        if not (folder / "last_checkpoint").exists():
            outputs += [(path, "a checkpoint") for path in folder.glob("*.pth") if _CHECKPOINT.match(path.name)]
        elif started_from.parent.resolve() == folder.resolve() and _CHECKPOINT.match(started_from.name):
            outputs.append((started_from, "a checkpoint"))
    elif dump.exists() and (folder / "last_checkpoint").exists():
        outputs = []
    inputs = [path for path in (Path(cfg.filename), started_from) if path.is_file() and not is_own(path)]
    claim(outputs, inputs, force=force)
    check_writable(folder / "a")
    if is_main_process():
        remove_unfinished(folder)


def _save_for_exact_resume(cfg: Config, save_on: tuple[str, ...]) -> None:
    stop = {"type": "StopHook", "save_on": save_on}
    cfg.custom_hooks = [*cfg.get("custom_hooks", []), {"type": "ExactResumeHook"}, stop]
    saving = {"type": "CheckpointHook", "backend_args": {"backend": "atomic_local"}}
    saving.update(cfg.get("default_hooks", {}).get("checkpoint", {}))
    if saving["type"] == "CheckpointHook":
        saving["type"] = "LastingCheckpointHook"
    cfg.merge_from_dict({"default_hooks": {"checkpoint": saving}})
