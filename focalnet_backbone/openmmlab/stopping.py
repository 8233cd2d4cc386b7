"""A training that is stopped at any moment leaves a whole checkpoint to go on from."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, is_distributed, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from focalnet_backbone.system.files import whole_file
from focalnet_backbone.system.interruption import Stopped, leave_interrupts_to_parent, stop_signals

OUTDATED = "outdated_checkpoints"
"""Where a checkpoint notes the files, by name, that go when the next one is written."""


class _LateRemoval:
    """A file backend that notes what it is to remove, until it is told that this may go."""

    def __init__(self, backend: Any, note: Callable[[list[str]], None]) -> None:
        self.backend = backend
        self.note = note
        self.outdated: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        """Note a file."""
        self.outdated.append(str(path))
        self.note([os.path.basename(path) for path in self.outdated])

    rmtree = remove

    def remove_outdated(self, kept: set[str]) -> None:
        """Remove what was noted and is none of the files to keep."""
        for path in self.outdated:
            if path in kept:
                continue
            if self.backend.isfile(path):
                self.backend.remove(path)
            elif self.backend.isdir(path):  # As deepspeed writes.
                self.backend.rmtree(path)
        self.outdated.clear()
        self.note([])


@HOOKS.register_module()
class LastingCheckpointHook(CheckpointHook):
    """mmengine's `CheckpointHook`, which removes old checkpoints only when the new one is there.

    With the options `max_keep_ckpts` and `save_best`, mmengine removes first: a training that is killed in between has
    no checkpoint left.
    """

    def before_train(self, runner: Runner) -> None:
        """Take over what a killed training had still to remove."""
        super().before_train(runner)
        note = functools.partial(runner.message_hub.update_info, OUTDATED)
        self.file_backend = _LateRemoval(self.file_backend, note)
        if OUTDATED in runner.message_hub.runtime_info and is_main_process():
            for name in runner.message_hub.get_info(OUTDATED):
                self.file_backend.remove(self.file_backend.join_path(self.out_dir, name))

    def save_now(self, runner: Runner, iteration: int) -> None:
        """Save a checkpoint after this many iterations, which goes when the next one is written."""
        name = f"iter_{iteration}.pth"
        written = self.file_backend.join_path(self.out_dir, name)
        if self.last_ckpt == written:
            return
        if is_main_process() and (self.by_epoch or self.max_keep_ckpts > 0):
            self.file_backend.remove(written)
        options = {"save_optimizer": self.save_optimizer, "save_param_scheduler": self.save_param_scheduler}
        meta = {"epoch": runner.epoch, "iter": iteration}
        runner.save_checkpoint(
            self.out_dir, name, meta=meta, by_epoch=False, backend_args=self.backend_args, **options, **self.args
        )
        if is_main_process():
            with whole_file(Path(runner.work_dir, "last_checkpoint")) as unfinished:
                unfinished.write_text(written, encoding="utf-8")

    def _save_checkpoint_with_step(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        super()._save_checkpoint_with_step(runner, *args, **kwargs)
        self._remove_outdated()

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        super()._save_best_checkpoint(runner, metrics)
        self._remove_outdated()

    def _remove_outdated(self) -> None:
        if is_main_process():
            best = [getattr(self, "best_ckpt_path", None), *getattr(self, "best_ckpt_path_dict", {}).values()]
            self.file_backend.remove_outdated({str(path) for path in (self.last_ckpt, *best)})


@HOOKS.register_module()
class StopHook(Hook):
    """Ends a training after the iteration in which SIGINT or SIGTERM came, in all its processes.

    Args:
        save_on: names of the signals at which a checkpoint is saved before.
    """

    priority = "LOWEST"

    def __init__(self, save_on: tuple[str, ...] = ("SIGTERM",)) -> None:
        self.save_on = save_on
        self.context = contextlib.ExitStack()
        self.received: list[int] = []

    def before_train(self, runner: Runner) -> None:
        """Begin to listen."""
        self.received = self.context.enter_context(stop_signals())

    def after_train(self, runner: Runner) -> None:
        """Listen no more."""
        self.context.close()

    def after_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        """End, if a signal came to any process."""
        number = torch.tensor(max(self.received, default=0))
        if is_distributed():
            all_reduce(number, "max")
        if number:
            self._end(runner, runner.iter + 1, int(number))

    def after_val_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        """End, if a signal came: the state is that after the last iteration."""
        if self.received:
            self._end(runner, runner.iter, self.received[0])

    def _end(self, runner: Runner, iteration: int, number: int) -> None:
        hook = next((hook for hook in runner.hooks if isinstance(hook, LastingCheckpointHook)), None)
        saved = signal.Signals(number).name in self.save_on and hook is not None
        if saved:
            hook.save_now(runner, iteration)
        self.context.close()
        raise Stopped(number, f"{f'saved after iteration {iteration}, ' if saved else ''}go on with --resume")


class _Rest:
    """A batch sampler that leaves out the first batches, once."""

    def __init__(self, batches: Any, done: int) -> None:
        self.batches = batches
        self.done = done

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batches, name)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list]:
        done, self.done = self.done, 0
        return itertools.islice(iter(self.batches), done, None)


def skip_batches_of_epoch(loader: DataLoader, done: int) -> None:
    """Let a loader's next pass leave out the batches that an interrupted epoch has done."""
    # DataLoader forbids to set it, as its workers might have begun; here they have not.
    loader.__dict__["batch_sampler"] = _Rest(loader.batch_sampler, done)


def shield_workers(loader: DataLoader) -> None:
    """Let a loader's workers leave signals to this process."""
    loader.worker_init_fn = functools.partial(_start_worker, loader.worker_init_fn)


def _start_worker(usual: Callable[[int], None] | None, worker: int) -> None:
    leave_interrupts_to_parent()
    if usual is not None:
        usual(worker)
