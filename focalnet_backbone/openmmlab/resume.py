"""Training that was killed goes on as if it had not been."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank, get_world_size
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.utils.data import BatchSampler

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.openmmlab.stopping import skip_batches_of_epoch
from focalnet_backbone.system.files import whole_file


class AtomicLocalBackend(LocalBackend):
    """mmengine's backend for local files, with files that appear when they are complete."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file."""
        with whole_file(filepath) as unfinished:
            super().put(obj, unfinished)


register_backend("atomic_local", AtomicLocalBackend, force=True)


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Gives a resumed run the images and the random numbers that the uninterrupted run would have had.

    Before each iteration the random number generators are seeded from the run's seed, the rank and the iteration,
    so that a checkpoint need not hold their state. The images are the same for any number of data loading workers,
    their random augmentation only with `num_workers=0`, as mmengine's workers have generators of their own.
    """

    priority = "LOWEST"

    def before_train_epoch(self, runner: Runner) -> None:
        """Let the data go on from where the resumed checkpoint left off."""
        sampler = runner.train_dataloader.batch_sampler.sampler
        if runner.iter == 0:
            seed = getattr(sampler, "seed", runner.seed)
            runner.message_hub.update_info("sampler_seed", seed)
            runner.message_hub.update_info("batch_size", _batch_size(runner))
        elif hasattr(sampler, "seed"):
            sampler.seed = runner.message_hub.get_info("sampler_seed", sampler.seed)
        if runner.iter > 0 and hasattr(runner.train_loop, "dataloader_iterator"):
            _skip_trained_batches(runner)
        elif done := runner.iter - runner.epoch * len(runner.train_dataloader):  # Stopped within an epoch.
            skip_batches_of_epoch(runner.train_dataloader, done)
        _seed(runner, runner.iter)

    def after_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        """Seed the next iteration, data loading included."""
        _seed(runner, runner.iter + 1)

    def after_val(self, runner: Runner) -> None:
        """Seed the next iteration again: validation draws numbers too, and a resumed run does not repeat it."""
        if "sampler_seed" in runner.message_hub.runtime_info:
            _seed(runner, runner.iter)


def check_same_run(runner: Runner, source: str) -> None:
    """Raise `CheckpointError` if a resumed training cannot go on as it began: no image left out, none repeated.

    Args:
        runner: after it has read the checkpoint.
        source: the checkpoint.
    """
    size = _batch_size(runner)
    before = runner.message_hub.runtime_info.get("batch_size", size)
    if before != size:
        raise CheckpointError(
            f"{source} is of a training with {before} images an iteration, which cannot change to {size}; "
            "load_from=... starts a training from its weights"
        )
    if runner.iter > runner.max_iters:
        raise CheckpointError(f"{source} has done {runner.iter} iterations, of {runner.max_iters} asked for")


def _batch_size(runner: Runner) -> int | None:
    """Images an iteration, of all processes together; None where the batches differ."""
    size = getattr(runner.train_dataloader, "batch_size", None)
    size = size or getattr(runner.train_dataloader.batch_sampler, "batch_size", None)
    return size and size * get_world_size()


def _skip_trained_batches(runner: Runner) -> None:
    """Set an iteration-based loop's data to the batch of its iteration, and spare the loop its own skipping."""
    loader, loop = runner.train_dataloader, runner.train_loop
    sampler = loader.batch_sampler.sampler
    if isinstance(sampler, InfiniteSampler) and type(loader.batch_sampler) is BatchSampler:
        # Skip indices, where the loop would load every image.
        trained = runner.iter * loader.batch_sampler.batch_size
        sampler.indices = itertools.islice(sampler._indices_of_rank(), trained, None)
        batches = type(loop.dataloader_iterator)(loader)
    else:
        batches = loop.dataloader_iterator
        for _ in range(runner.iter):
            next(batches)
    loop.dataloader_iterator = itertools.chain(itertools.repeat(None, runner.iter), batches)


def _seed(runner: Runner, iteration: int) -> None:
    entropy = [runner.message_hub.get_info("sampler_seed", runner.seed), get_rank(), iteration]
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """The checkpoint that mmengine wrote last in a working folder, or None if there is none."""
    work_dir = Path(work_dir)
    note = work_dir / "last_checkpoint"
    if note.is_file():
        named = Path(note.read_text(encoding="utf-8").strip())
        for path in (named, work_dir / named.name):
            if path.is_file():
                return path
    # The note is written after its checkpoint, so a run killed in between has a checkpoint that it does not name.
    # The best one by a metric is saved without the optimizer, and cannot be gone on from.
    whole = [path for path in work_dir.glob("*.pth") if not path.name.startswith((".", "best_"))]
    return max(whole, key=lambda path: path.stat().st_mtime, default=None)
