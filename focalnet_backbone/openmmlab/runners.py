"""From a config file to mmengine's runner, with everything checked that can be before a model is built."""

from __future__ import annotations

import copy
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.fileio import dump
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import METRICS, RUNNERS, init_default_scope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

import focalnet_backbone.openmmlab  # noqa: F401  (operators, safe checkpoints and FocalNet for any config)
from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.openmmlab.backbone import FocalNet
from focalnet_backbone.openmmlab.changed_settings import Settings
from focalnet_backbone.openmmlab.data import leaf_datasets, name_damaged_files
from focalnet_backbone.openmmlab.own_data import use_own_data
from focalnet_backbone.openmmlab.resume import check_same_run, latest_checkpoint
from focalnet_backbone.openmmlab.stopping import shield_workers
from focalnet_backbone.openmmlab.unread import freeze_unread
from focalnet_backbone.openmmlab.weights import check_fit, check_numbers, check_resumable, read_weights
from focalnet_backbone.own_data import OwnData
from focalnet_backbone.system.files import remove_unfinished
from focalnet_backbone.system.outputs import check_writable, claim, is_own, result_file

_DUMPS = {"mmdet": "DumpDetResults", "mmpretrain": "DumpResults"}
"""By scope, the metric that writes predictions into a file. mmsegmentation's own metric writes label images."""

CheckData: TypeAlias = Callable[[Config, tuple[str, ...]], None]

SAVE_ON_STOP = {"sigterm": ("SIGTERM",), "always": ("SIGTERM", "SIGINT"), "never": ()}
"""Signals at which a training saves a checkpoint before it ends, by what the tools call it."""

_CHECKPOINT = re.compile(r"(iter|epoch|best)_.*\.pth")


def load_config(path: str | Path, options: dict[str, Any] | None = None, own_data: OwnData | None = None) -> Config:
    """Read a config and set its default scope, after which its parts can be built.

    Args:
        path: a config of mmsegmentation, mmdetection or mmpretrain, as a Python file.
        options: values that replace the config's, by dotted keys.
        own_data: what takes the place of the config's data; what that changes is printed.

    Raises:
        FileNotFoundError: there is no such file, or no data.
        ValueError: it is no valid config, or not one for such data.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no config file {path}")
    try:
        with warnings.catch_warnings():
            # mmengine looks up mmseg's configs with pkg_resources, which warns several times that it is old.
            warnings.filterwarnings("ignore", message="pkg_resources")
            cfg = Config.fromfile(path)
    except ImportError as error:  # Of `custom_imports`, whose message says so, or of a base in another package.
        absent = re.match(r"(\w+) is not installed, please install", str(error))
        raise ModuleNotFoundError(str(error), name=absent[1]) if absent else error from None
    except Exception as error:  # A config is code, and may raise anything.
        raise ValueError(f"{path} is no valid config: {type(error).__name__}: {error}") from error
    for note in use_own_data(cfg, own_data) if own_data else ():
        if os.environ.get("RANK", "0") == "0":
            print(f"own data: {note}")
    if options:
        cfg.merge_from_dict(options)
    init_default_scope(cfg.get("default_scope") or "mmengine")
    return cfg


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
    cfg = _prepare(config, work_dir, options, launcher, own_data)
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
    runner = _build(cfg)
    if start is not None:
        check_numbers(runner.model, start, cfg.load_from)
    # What mmengine would build when training starts: a mistake in it is one of the config, too.
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    _ = runner.train_loop, runner.val_loop
    return runner


def build_test_runner(
    config: str | Path,
    checkpoint: str,
    *,
    work_dir: str | None = None,
    options: dict[str, Any] | None = None,
    launcher: str = "none",
    tta: bool = False,
    out: str | None = None,
    show_dir: str | None = None,
    show: bool = False,
    wait_time: float = 2.0,
    check: CheckData | None = None,
    force: bool = False,
) -> Runner:
    """A runner that is ready to test a checkpoint.

    Args:
        config: config file.
        checkpoint: weights of the whole model, a file or an address.
        work_dir: as for training.
        options: as for training.
        launcher: as for training.
        tta: whether to augment each image and merge the predictions.
        out: where to save predictions: a folder (mmseg) or a `.pkl` file (mmdet, mmpretrain).
        show_dir: folder for painted images.
        show: whether to show painted images in a window.
        wait_time: seconds to show each.
        check: as for training.
        force: whether to replace a user's files.

    Raises:
        FileNotFoundError: the config, the dataset or the checkpoint is missing.
        FileExistsError: there are files already where `out` or `show_dir` would write.
        ValueError: the config is wrong, or has not what an argument needs.
        CheckpointError: the checkpoint cannot be read, or does not fit the model.
    """
    cfg = _prepare(config, work_dir, options, launcher)
    require(cfg, "model", "test_dataloader", "test_cfg", "test_evaluator")
    weights, _ = read_weights(checkpoint)
    cfg.load_from = checkpoint
    if check:
        check(cfg, ("test_dataloader",))
    scope = cfg.get("default_scope")
    dumps = scope in _DUMPS
    if out and dumps and not out.endswith((".pkl", ".pickle")):
        raise ValueError(f"--out must be a .pkl file for {scope}, got {out}")
    if out and Path(out).is_file() and not dumps:
        raise ValueError(f"--out must be a folder for mmseg, and {out} is a file")
    if out and not dumps:
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        evaluators[0].update(output_dir=out, keep_results=True)
    if tta and (show or show_dir) and scope == "mmpretrain":
        raise ValueError("mmpretrain paints no images of --tta; test once with it, and once with --show or --show-dir")
    if show or show_dir:
        _turn_on_painting(cfg, show, wait_time, show_dir)
    if tta:
        _turn_on_augmentation(cfg)
    # mmengine writes the config into the working folder: not over the one that training left there.
    cfg = Config(cfg.to_dict(), cfg_text=cfg.text, filename=f"test_{Path(config).name}")
    outputs = [(Path(cfg.work_dir, cfg.filename), "the config")]
    if out and dumps:
        outputs.append((Path(out), "the predictions"))
    claim(outputs, [config, checkpoint], force=force)
    if show_dir and (scope != "mmdet" or os.path.isabs(show_dir)):  # Else mmdetection makes one in a new folder.
        _check_folder(show_dir, force=force)
    if out and not dumps:
        _check_folder(out, force=force)
    runner = _build(cfg)
    model = runner.model
    while isinstance(model, BaseTTAModel) or is_model_wrapper(model):
        model = model.module
    check_fit(model, weights, checkpoint)
    if out and dumps:
        runner.test_evaluator.metrics.append(_dump_whole(_DUMPS[scope], out))
    return runner


def _dump_whole(metric: str, out: str) -> BaseMetric:
    """A host's metric that writes predictions to a pickle, whole or not at all."""
    with METRICS.switch_scope_and_registry(None) as metrics:
        kind = metrics.get(metric)

    class DumpWhole(kind):
        def compute_metrics(self, results: list) -> dict:
            with result_file(Path(self.out_file_path)) as unfinished:
                dump(results, str(unfinished))
            print_log(f"the predictions are in {self.out_file_path}", logger="current")
            return {}

    return DumpWhole(out_file_path=out)


def _check_folder(folder: str, *, force: bool) -> None:
    """Raise `OSError` unless a folder of pictures, which take the photos' names, is empty or can be made."""
    check_writable(Path(folder, "a"))
    # The host writes the pictures, and without a mark of ours: by name alone they could be a user's.
    if not force and Path(folder).is_dir() and any(Path(folder).iterdir()):
        raise FileExistsError(f"{folder} has files in it, which pictures may replace; name another or give --force")


def _prepare(
    config: str | Path,
    work_dir: str | None,
    options: dict[str, Any] | None,
    launcher: str,
    own_data: OwnData | None = None,
) -> Config:
    cfg = load_config(config, options, own_data)
    cfg.launcher = launcher
    cfg.work_dir = work_dir or cfg.get("work_dir") or str(Path("work_dirs") / Path(config).stem)
    # mmengine keeps visualizers by name: with the config's, a second training of a process would log into the first's
    # folder. Without one, it takes the experiment's.
    (cfg.get("visualizer") or {}).pop("name", None)
    if launcher == "pytorch" and not torch.cuda.is_available():
        _distribute_on_cpu(cfg)
    return cfg


def require(cfg: Config, *keys: str) -> None:
    """Raise `ValueError` unless a config has these keys."""
    missing = [key for key in keys if cfg.get(key) is None]  # An empty `test_cfg` means the usual loop.
    if missing:
        raise ValueError(f"{cfg.filename} has no {', '.join(missing)}")


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


class _Runner(Runner):
    """A runner whose datasets name the files that they cannot read, and which resumes by the config as it is now."""

    @staticmethod
    def build_dataloader(dataloader: DataLoader | dict[str, Any], *args: Any, **kwargs: Any) -> DataLoader:
        try:
            loader = Runner.build_dataloader(dataloader, *args, **kwargs)
        except (KeyError, ValueError, TypeError, AssertionError) as error:
            files = [part["ann_file"] for part in leaf_datasets(dataloader["dataset"]) if part.get("ann_file")]
            if not files:
                raise
            problem = f"{type(error).__name__}: {error}"
            raise ValueError(f"the dataset of {' and '.join(files)} cannot be built: {problem}") from error
        name_damaged_files(loader.dataset)
        shield_workers(loader)
        return loader

    def dump_config(self) -> None:
        """Write the config into the working folder, marked as ours to replace."""
        if is_main_process():
            path = Path(self.work_dir, Path(self.cfg.filename or f"{self.timestamp}.py").name)
            with result_file(path) as unfinished:
                self.cfg.dump(unfinished)

    def build_model(self, model: nn.Module | dict[str, Any]) -> nn.Module:
        built = super().build_model(model)
        freeze_unread(built)
        return built

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        settings = Settings(self)
        try:
            super().resume(filename, *args, **kwargs)
        except ValueError as error:  # Of torch's optimizer.
            raise CheckpointError(
                f"{filename} is of a training of other parameters, or with other groups of them: {error}; "
                "load_from=... starts a training from its weights"
            ) from error
        check_same_run(self, filename)
        settings.apply(self, filename)


def _build(cfg: Config) -> Runner:
    return RUNNERS.build(cfg) if "runner_type" in cfg else _Runner.from_cfg(cfg)


def _distribute_on_cpu(cfg: Config) -> None:
    """Let several processes work without GPUs, which mmengine's launcher takes for granted."""
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    cfg.model_wrapper_cfg = {
        "type": "MMDistributedDataParallel",
        "device_ids": None,
        "broadcast_buffers": False,
        "find_unused_parameters": cfg.get("find_unused_parameters", False),
    }
    if _replace_type(cfg.model, "SyncBN", "BN"):
        print_log("without GPUs, BN takes the place of SyncBN: its statistics are each process's own", "current")


def _replace_type(part: object, old: str, new: str) -> int:
    """Replace a `type` everywhere in a part of a config. Returns how often."""
    if isinstance(part, list | tuple):
        return sum(_replace_type(value, old, new) for value in part)
    if not isinstance(part, dict):
        return 0
    found = part.get("type") == old
    if found:
        part["type"] = new
    return found + sum(_replace_type(value, old, new) for value in part.values())


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


def _turn_on_painting(cfg: Config, show: bool, wait_time: float, show_dir: str | None) -> None:
    hook = cfg.get("default_hooks", {}).get("visualization")
    if hook is None:
        raise ValueError("--show and --show-dir need a visualization hook in the config's default_hooks")
    scope = cfg.get("default_scope")
    hook["enable" if scope == "mmpretrain" else "draw"] = True
    if show:
        hook.update(show=True, wait_time=wait_time)
    if show_dir and scope == "mmdet":
        hook.test_out_dir = show_dir
    elif scope == "mmpretrain":
        hook.update(interval=1, out_dir=show_dir)
    elif show_dir:
        require(cfg, "visualizer")
        hook.interval = 1
        cfg.visualizer.save_dir = show_dir


def _turn_on_augmentation(cfg: Config) -> None:
    pipeline = cfg.test_dataloader.dataset.get("pipeline", [])
    if cfg.get("default_scope") == "mmdet" and "tta_model" not in cfg:
        nms = {"type": "nms", "iou_threshold": 0.5}
        cfg.tta_model = {"type": "DetTTAModel", "tta_cfg": {"nms": nms, "max_per_img": 100}}
    if cfg.get("default_scope") == "mmpretrain":  # As its own tool does it: both of an image and its mirror image.
        flips = [{"type": "RandomFlip", "prob": 1.0}, {"type": "RandomFlip", "prob": 0.0}]
        augment = {"type": "TestTimeAug", "transforms": [flips, [pipeline[-1]]]}
        cfg.setdefault("tta_model", {"type": "AverageClsScoreTTA"})
        cfg.setdefault("tta_pipeline", [*copy.deepcopy(pipeline[:-1]), augment])
    if cfg.get("default_scope") == "mmdet" and "tta_pipeline" not in cfg:
        keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")
        flips = [{"type": "RandomFlip", "prob": 1.0}, {"type": "RandomFlip", "prob": 0.0}]
        pack = [{"type": "PackDetInputs", "meta_keys": keys}]
        augment = {"type": "TestTimeAug", "transforms": [flips, pack]}
        cfg.tta_pipeline = [*copy.deepcopy(pipeline[:-1]), augment]
    require(cfg, "tta_model", "tta_pipeline")
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = {**cfg.tta_model, "module": cfg.model}
