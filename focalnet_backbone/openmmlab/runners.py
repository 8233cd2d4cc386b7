"""From a config file to mmengine's runner, for training and testing alike."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.registry import RUNNERS, init_default_scope
from mmengine.runner import BaseLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

import focalnet_backbone.openmmlab  # noqa: F401  (operators, safe checkpoints and FocalNet for any config)
from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.openmmlab.changed_settings import Settings
from focalnet_backbone.openmmlab.data import leaf_datasets, name_damaged_files
from focalnet_backbone.openmmlab.own_data import use_own_data
from focalnet_backbone.openmmlab.resume import check_same_run
from focalnet_backbone.openmmlab.stopping import shield_workers
from focalnet_backbone.openmmlab.unread import freeze_unread
from focalnet_backbone.own_data import OwnData
from focalnet_backbone.system.command_line import printable
from focalnet_backbone.system.outputs import result_file

CheckData: TypeAlias = Callable[[Config, tuple[str, ...]], None]


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
            print(f"own data: {printable(note)}")
    if options:
        cfg.merge_from_dict(options)
    init_default_scope(cfg.get("default_scope") or "mmengine")
    return cfg


def prepare(
    config: str | Path,
    work_dir: str | None,
    options: dict[str, Any] | None,
    launcher: str,
    own_data: OwnData | None = None,
) -> Config:
    """The config of a training or a test, with the options, the working folder and the launcher that it was given."""
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

    def train(self) -> nn.Module:
        try:
            return super().train()
        finally:
            self._end_workers()

    def test(self) -> dict[str, float]:
        try:
            return super().test()
        finally:
            self._end_workers()

    def _end_workers(self) -> None:
        """End the loaders' workers. When Python collects the runner, it closes their queues first: each worker would
        hear nothing, and be waited for for ten seconds."""
        for loop in (self._train_loop, self._val_loop, self._test_loop):
            if isinstance(loop, BaseLoop):
                if hasattr(loop, "dataloader_iterator"):
                    loop.dataloader_iterator = None
                if isinstance(loop.dataloader, DataLoader):  # One with lasting workers keeps them.
                    loop.dataloader._iterator = None

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


def build(cfg: Config) -> Runner:
    """The runner that a config asks for."""
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
