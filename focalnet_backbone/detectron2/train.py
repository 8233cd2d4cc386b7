"""Training and evaluation of detectors with detectron2."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.data import DatasetCatalog
from detectron2.engine import (
    AMPTrainer,
    HookBase,
    SimpleTrainer,
    create_ddp_model,
    default_writers,
    hooks,
)
from detectron2.evaluation import inference_on_dataset
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch import Tensor, nn

from focalnet_backbone.detectron2.checkpoint import FocalNetCheckpointer
from focalnet_backbone.detectron2.datasets import categories_of
from focalnet_backbone.detectron2.jobs import Job
from focalnet_backbone.detectron2.loader import derive_seed

logger = logging.getLogger(__name__)


class FiniteTrainer(SimpleTrainer):
    """detectron2's trainer, which stops at a loss that is not finite, with the losses in a readable form."""

    def _write_metrics(self, loss_dict: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> None:
        try:
            super()._write_metrics(loss_dict, *args, **kwargs)
        except FloatingPointError as error:
            losses = ", ".join(f"{name} {loss.item():.4g}" for name, loss in loss_dict.items())
            raise FloatingPointError(f"A loss is not finite: {losses}.") from error


class FiniteAMPTrainer(FiniteTrainer, AMPTrainer):
    """The same with mixed precision."""


@dataclass(frozen=True)
class Run:
    """What a training must have in common with the one that it resumes. Goes into the checkpoints."""

    seed: int
    batch_size: int
    processes: int
    categories: list[dict]

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)


class SeedEachIteration(HookBase):
    """Seed torch before each iteration from the run's seed, the rank and the iteration.

    So drop path and the sampling of proposals need no memory of the iterations before, and resume as they were.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_step(self) -> None:
        torch.manual_seed(derive_seed(self.seed, comm.get_rank(), self.trainer.iter))


class BestCheckpointer(hooks.BestCheckpointer):
    """detectron2's hook, with a memory of the best so far that goes into the checkpoints."""

    def state_dict(self) -> dict[str, Any]:
        return {"best_metric": self.best_metric, "best_iter": self.best_iter}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best_metric, self.best_iter = state["best_metric"], state["best_iter"]


def train(job: Job, *, resume: bool = False) -> dict[str, Any]:
    """Train as a job says, and return what `evaluate` says at the end.

    Writes into `job.output_dir`: checkpoints (`model_0004999.pth`, ..., `model_final.pth`, and `model_best.pth` by
    the evaluations), `last_checkpoint` with the name of the newest, `metrics.json` and tensorboard's events.

    Args:
        job: what to train, and how.
        resume: go on from the last checkpoint in `job.output_dir`, if there is one. The iterations that follow are
            those of an uninterrupted run: no image is left out or repeated.

    Raises:
        FileExistsError: there is a training in `job.output_dir`, and `resume` is False.
        FloatingPointError: a loss is not finite; the message has the iteration and the losses.
        ValueError: the training to resume had other classes, another batch size or number of processes.
        CheckpointError: the weights to start from do not fit.
    """
    for leftover in Path(job.output_dir).glob(".unfinished-*") if comm.is_main_process() else ():
        leftover.unlink()  # Of a run that was killed while it wrote.
    model = _build_model(job)
    checkpointer = FocalNetCheckpointer(model, job.output_dir)
    resuming = checkpointer.has_checkpoint()
    if resuming and not resume:
        last = checkpointer.get_checkpoint_file()
        raise FileExistsError(f"there is a training at {last}; resume it with --resume, or name another output folder")
    saved = checkpointer.resume_or_load(job.weights, resume=resume)
    if resuming and "run" not in saved:
        raise ValueError(f"{checkpointer.get_checkpoint_file()} is not of this trainer, which cannot resume it")
    start_iter = saved["iteration"] + 1 if resuming else 0

    seed = saved["run"]["seed"] if resuming else job.seed if job.seed >= 0 else comm.shared_random_seed()
    loader = job.train_loader(seed, start_iter)
    run = Run(seed, job.batch_size, comm.get_world_size(), categories_of(job.train_names[0]))
    if resuming:
        _check_same(run, saved["run"], job.output_dir)

    trainer = _build_trainer(job, model, loader)
    results: dict[str, Any] = {}
    trainer.register_hooks(_build_hooks(job, trainer, checkpointer, run, results))
    if resuming:
        trainer.load_state_dict(saved["trainer"])
    try:
        trainer.train(start_iter, job.max_iter)
    except FloatingPointError as error:
        raise FloatingPointError(_explain_divergence(error, trainer)) from error
    return results


def evaluate(job: Job, model: nn.Module) -> dict[str, Any]:
    """Evaluate a model on a job's test set, by COCO's measures in percent: `{"bbox": {"AP": ...}, "segm": {...}}`.

    With several test sets, these by the name of each. In processes of a rank above 0 the result is empty.
    """
    results = {}
    for name in job.test_names:
        results[name] = inference_on_dataset(model, job.test_loader(name), job.evaluator(name)) or {}
        for task, measures in results[name].items():
            logger.info("%s of %s: %s", task, name, ", ".join(f"{key} {value:.1f}" for key, value in measures.items()))
    return next(iter(results.values())) if len(results) == 1 else results


def evaluate_weights(job: Job, *, last: bool = False) -> dict[str, Any]:
    """Evaluate a job's weights, or the last checkpoint in its output folder.

    Raises:
        CheckpointError: they are not the weights of the whole model.
        ValueError: there are none, or they were trained on other classes.
    """
    model = _build_model(job)
    checkpointer = FocalNetCheckpointer(model, job.output_dir, require_all=True)
    path = checkpointer.get_checkpoint_file() if last else job.weights
    if not path:
        raise ValueError(f"nothing to evaluate: no weights are named, nor is there a training in {job.output_dir}")
    saved = checkpointer.load(path)
    for name in job.test_names:
        DatasetCatalog.get(name)
        if "run" in saved and saved["run"]["categories"] != categories_of(name):
            raise ValueError(f"{path} was trained on other classes than {name} has")
    return evaluate(job, model)


def _build_model(job: Job) -> nn.Module:
    seed_all_rng(job.seed if job.seed >= 0 else None)
    try:
        model = job.model()
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the model cannot be built: {error.args[0]}") from error
    logger.info("%s with %.2f M parameters", type(model).__name__, sum(p.numel() for p in model.parameters()) / 1e6)
    return model


def _build_trainer(job: Job, model: nn.Module, loader: Iterable) -> SimpleTrainer:
    on_gpu = job.device.startswith("cuda")
    if job.mixed_precision and not on_gpu:
        logger.warning("mixed precision is for GPUs; training in float32 on %s", job.device)
    options = dict(job.ddp) if on_gpu else {**job.ddp, "device_ids": None}
    trainer_class = FiniteAMPTrainer if job.mixed_precision and on_gpu else FiniteTrainer
    return trainer_class(create_ddp_model(model, **options), loader, job.optimizer(model))


def _build_hooks(
    job: Job, trainer: SimpleTrainer, checkpointer: FocalNetCheckpointer, run: Run, results: dict[str, Any]
) -> list[HookBase]:
    """What goes on around the iterations; each evaluation is put into `results`."""
    checkpointer.add_checkpointable("trainer", trainer)
    checkpointer.add_checkpointable("run", run)

    def run_evaluation() -> dict[str, Any]:
        results.update(evaluate(job, trainer.model))
        return results

    train_hooks = [
        hooks.IterationTimer(),
        SeedEachIteration(run.seed),
        hooks.LRScheduler(scheduler=job.scheduler(trainer.optimizer)),
    ]
    if job.test_names:
        train_hooks.append(hooks.EvalHook(job.eval_period, run_evaluation))
    if comm.is_main_process():
        if job.test_names:
            best = FocalNetCheckpointer(checkpointer.model, job.output_dir, tag_last=False, run=run)
            train_hooks.append(BestCheckpointer(job.eval_period, best, job.best_metric))
        # After the evaluation, so that a checkpoint knows of the best one up to its own iteration.
        train_hooks.append(hooks.PeriodicCheckpointer(checkpointer, job.checkpoint_period))
        train_hooks.append(hooks.PeriodicWriter(default_writers(job.output_dir, job.max_iter), job.log_period))
    return train_hooks


def _check_same(run: Run, saved: dict[str, Any], output_dir: str) -> None:
    for key, value in run.state_dict().items():
        if saved[key] != value:
            raise ValueError(f"the training in {output_dir} had {key} {saved[key]}, which cannot change to {value}")


def _explain_divergence(error: FloatingPointError, trainer: SimpleTrainer) -> str:
    latest = trainer.storage.latest().items()
    losses = ", ".join(f"{name} {value:.4g}" for name, (value, _) in latest if "loss" in name)
    return (
        f"stopped at iteration {trainer.iter}: {error} The losses before it: {losses or 'none'}. Checkpoints are kept"
    )
