"""Training and evaluation of detectors with detectron2."""

from __future__ import annotations

import logging
import math
import re
import signal
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
from torch import nn

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.checkpoints.files import read_file
from focalnet_backbone.detectron2.backbone import freeze_unread
from focalnet_backbone.detectron2.checkpoint import FocalNetCheckpointer
from focalnet_backbone.detectron2.datasets import categories_of
from focalnet_backbone.detectron2.jobs import Job
from focalnet_backbone.detectron2.loader import derive_seed
from focalnet_backbone.system.command_line import first_line
from focalnet_backbone.system.files import remove_unfinished
from focalnet_backbone.system.interruption import Stopped, leave_interrupts_to_parent, raise_on_signals, stop_signals
from focalnet_backbone.system.outputs import check_apart, check_writable, claim, is_own

logger = logging.getLogger(__name__)

_NUMBERED = re.compile(r"model_(\d{7,})\.pth")


@dataclass(frozen=True)
class Run:
    """What a training must have in common with the one that it resumes. Goes into the checkpoints."""

    seed: int
    batch_size: int
    processes: int
    categories: list[dict]

    def state_dict(self) -> dict[str, Any]:
        """What the checkpoints hold of it."""
        return asdict(self)


def saved_categories(checkpoint: Any, source: str | Path) -> list[dict]:
    """The classes that a checkpoint was trained on; empty if it does not tell.

    Raises `CheckpointError`, which names the source, if what it tells is not `{"id": int, "name": str}` of each.
    """
    run = checkpoint.get("run") if isinstance(checkpoint, Mapping) else None
    categories = run.get("categories", []) if isinstance(run, Mapping) else []
    fields = {"id": int, "name": str}
    right = isinstance(categories, list) and all(
        isinstance(category, Mapping) and all(isinstance(category.get(key), kind) for key, kind in fields.items())
        for category in categories
    )
    if not right or len({category["id"] for category in categories}) < len(categories):
        raise CheckpointError(f"{source} does not tell its classes (run.categories) as an id and a name of each")
    return categories


def _check_resumable(saved: Mapping[str, Any], source: str | Path) -> None:
    """Raise `CheckpointError` unless a checkpoint is one of this trainer's, to go on from."""
    if "run" not in saved:
        raise ValueError(f"{source} is not of this trainer, which cannot resume it")
    saved_categories(saved, source)
    run = saved["run"]
    numbers = [run.get(key) if isinstance(run, Mapping) else None for key in ("seed", "batch_size", "processes")]
    if not all(isinstance(number, int) for number in (saved.get("iteration"), *numbers)):
        raise CheckpointError(f"{source} cannot be gone on from: it lacks whole numbers in iteration or run")
    if not isinstance(saved.get("trainer"), Mapping) or "categories" not in run:
        raise CheckpointError(f"{source} cannot be gone on from: it lacks the trainer's state or the classes")


class SeedEachIteration(HookBase):
    """Seed torch before each iteration from the run's seed, the rank and the iteration.

    So drop path and the sampling of proposals need no memory of the iterations before, and resume as they were.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_step(self) -> None:
        """Seed torch for the iteration that comes."""
        torch.manual_seed(derive_seed(self.seed, comm.get_rank(), self.trainer.iter))


class StopWhenTold(HookBase):
    """End the training after the iteration in which SIGINT or SIGTERM came, in all its processes.

    Args:
        received: where the signals appear.
        checkpointer: writes the checkpoint to go on from.
        save_on: which signals leave one: "sigterm", "always" or "never".
    """

    def __init__(self, received: list[int], checkpointer: FocalNetCheckpointer, save_on: str) -> None:
        self.received = received
        self.checkpointer = checkpointer
        self.save_on = save_on

    def after_step(self) -> None:
        """End, if a signal came to any process."""
        number = max(self.received, default=0)
        if comm.get_world_size() > 1:
            told = torch.tensor(number, device=next(self.checkpointer.model.parameters()).device)
            torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
            number = int(told)
        if not number:
            return
        saving = self.save_on == "always" or (self.save_on == "sigterm" and number == signal.SIGTERM)
        name = f"model_{self.trainer.iter:07d}"
        if saving and not Path(self.checkpointer.save_dir, f"{name}.pth").exists():
            self.checkpointer.save(name, iteration=self.trainer.iter)
        remark = f"saved after iteration {self.trainer.iter}, " if saving else ""
        raise Stopped(number, f"{remark}with --resume it goes on from the last checkpoint")


class LastingCheckpointer(hooks.PeriodicCheckpointer):
    """detectron2's `PeriodicCheckpointer`, which counts the checkpoints from before a resume among those to keep.

    Args:
        checkpointer: writes the files.
        period: iterations from one to the next.
        max_to_keep: how many to keep; None keeps them all. Older ones go only when the newer is whole.
        start_iter: the first iteration of this process; checkpoints of earlier ones are of the same training.
    """

    def __init__(
        self, checkpointer: FocalNetCheckpointer, period: int, max_to_keep: int | None, start_iter: int
    ) -> None:
        super().__init__(checkpointer, period, max_to_keep=max_to_keep)
        if max_to_keep is not None and start_iter > 0:
            found = {path: _NUMBERED.fullmatch(path.name) for path in Path(checkpointer.save_dir).glob("model_*.pth")}
            numbered = sorted((int(match[1]), str(path)) for path, match in found.items() if match)
            self.recent_checkpoints = [path for iteration, path in numbered if iteration < start_iter]

    def before_train(self) -> None:
        """Write the final checkpoint if all iterations are done but it is not there: a kill may have come before it."""
        super().before_train()
        last = Path(self.checkpointer.get_checkpoint_file()).name
        if self.trainer.start_iter == self.trainer.max_iter and last != "model_final.pth":
            self.trainer.iter = self.trainer.max_iter - 1
            self.checkpointer.save("model_final", iteration=self.trainer.iter)

    def after_step(self) -> None:
        """Save, if it is time, and then remove what is too many: a kill may have left one more."""
        super().after_step()
        if (self.trainer.iter + 1) % self.period == 0 and self.max_to_keep is not None:
            while len(self.recent_checkpoints) > self.max_to_keep:
                Path(self.recent_checkpoints.pop(0)).unlink(missing_ok=True)


class BestCheckpointer(HookBase):
    """Keep the best of the evaluated states in `model_best.pth`. Comes after the hook that evaluates.

    The file holds the value that it reached, so that a training which goes on does not replace it by a worse one.

    Args:
        checkpointer: writes the file.
        metric: name of the value to compare; larger is better.
        resuming: whether a file that is there already is of this training.
    """

    def __init__(self, checkpointer: FocalNetCheckpointer, metric: str, *, resuming: bool) -> None:
        self.checkpointer = checkpointer
        self.metric = metric
        path = Path(checkpointer.save_dir, "model_best.pth")
        self.best = read_file(path).get("best", -math.inf) if resuming and path.is_file() else -math.inf

    def after_step(self) -> None:
        """Write `model_best.pth` if this iteration was evaluated and is the best so far."""
        value, iteration = self.trainer.storage.latest().get(self.metric, (math.nan, -1))
        if iteration == self.trainer.iter and value > self.best:
            self.best = value
            last = min(iteration, self.trainer.max_iter - 1)  # The evaluation at the end comes after the last one.
            self.checkpointer.save("model_best", iteration=last, best=value)
            logger.info("the best %s so far: %.2f", self.metric, value)

    def after_train(self) -> None:
        """The same for the evaluation at the end."""
        self.after_step()


def refuse_older_training(output_dir: str | Path) -> None:
    """Raise `FileExistsError` if there is a training in a folder, which a new one would overwrite."""
    tag = Path(output_dir, "last_checkpoint")
    if tag.is_file():
        last = tag.with_name(tag.read_text(encoding="utf-8").strip())
        raise FileExistsError(f"there is a training at {last}; resume it with --resume, or name another output folder")


def claim_output_dir(job: Job, config: str | Path, *, force: bool = False) -> None:
    """Check that a training would write over nothing of a user's in its output folder.

    Raises `FileExistsError`, `OSError` or `ValueError`, as `claim` does.
    """
    folder = Path(job.output_dir)
    check_writable(folder / "a")
    names = ["config.yaml", "model_final.pth", "model_best.pth", *(p.name for p in folder.glob("model_[0-9]*.pth"))]
    inputs = [path for path in (Path(config), Path(job.weights or "")) if path.is_file() and not is_own(path)]
    if (folder / "last_checkpoint").is_file():  # It is a training's, and this one resumes it.
        check_apart([(folder / "config.yaml", "the config")], inputs)
        return
    # A training that was killed just after its first checkpoint has not noted it.
    ours = {name for name in names if name.endswith(".pth") and (folder / name).is_file() and _is_run(folder / name)}
    claim([(folder / name, "the training") for name in names if name not in ours], inputs, force=force)


def _is_run(path: Path) -> bool:
    try:
        checkpoint = read_file(path)
    except CheckpointError:
        return False
    return isinstance(checkpoint, Mapping) and "run" in checkpoint


def build_model(job: Job) -> nn.Module:
    """A job's model, initialised from its seed. Raises `ValueError` if the config does not describe one."""
    if job.seed >= 0:
        torch.manual_seed(job.seed)
    else:
        torch.seed()
    try:
        model = job.model()
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"the model cannot be built: {first_line(error)}") from error
    freeze_unread(model)
    logger.info("%s with %.2f M parameters", type(model).__name__, sum(p.numel() for p in model.parameters()) / 1e6)
    return model


def train(job: Job, *, resume: bool = False, save_on_stop: str = "sigterm") -> dict[str, Any]:
    """Train as a job says, and return what `evaluate` says at the end.

    Writes into `job.output_dir`: checkpoints (`model_0004999.pth`, ..., `model_final.pth`, and `model_best.pth` by
    the evaluations), `last_checkpoint` with the name of the newest, `metrics.json` and tensorboard's events.

    Args:
        job: what to train, and how.
        resume: go on from the last checkpoint in `job.output_dir`, if there is one. The iterations that follow are
            those of an uninterrupted run: no image is left out or repeated. Learning rate, schedule and the
            optimizer's other settings are those of the job now, and the log says what has changed; the seed stays.
        save_on_stop: which signals leave a checkpoint before the training ends: "sigterm", "always" or "never".

    Raises:
        FileExistsError: there is a training in `job.output_dir`, and `resume` is False.
        Stopped: SIGINT or SIGTERM came.
        FloatingPointError: a loss is not finite; the message has the iteration and the losses.
        ValueError: the training to resume had other classes, another batch size, number of processes or optimizer,
            or was longer, or not all processes see its checkpoint.
        CheckpointError: the weights to start from do not fit.
    """
    if not resume:
        refuse_older_training(job.output_dir)
    if comm.is_main_process():
        remove_unfinished(job.output_dir)
    model = build_model(job)
    checkpointer = FocalNetCheckpointer(model, job.output_dir)
    resuming = checkpointer.require_all = checkpointer.has_checkpoint()
    saved = checkpointer.resume_or_load(job.weights, resume=resume)
    if resuming:
        _check_resumable(saved, checkpointer.get_checkpoint_file())
    start_iter = saved["iteration"] + 1 if resuming else 0
    if start_iter > job.max_iter:
        raise ValueError(
            f"the training in {job.output_dir} has done {start_iter} iterations, of {job.max_iter} asked for"
        )
    if len(set(comm.all_gather(start_iter))) > 1:
        raise ValueError(f"not all processes see the checkpoints in {job.output_dir}; the machines must share it")

    seed = saved["run"]["seed"] if resuming else job.seed if job.seed >= 0 else comm.shared_random_seed()
    if resuming and 0 <= job.seed != seed:
        logger.warning(
            "the seed stays %d, that of the training which is resumed, and does not become %d", seed, job.seed
        )
    loader = job.train_loader(seed, start_iter)
    run = Run(seed, job.batch_size, comm.get_world_size(), categories_of(job.train_names[0]))
    if resuming:
        _check_same(run, saved["run"], job.output_dir)

    trainer = _build_trainer(job, model, loader)
    results: dict[str, Any] = {}
    trainer.register_hooks(_build_hooks(job, trainer, checkpointer, run, results, start_iter=start_iter))
    if resuming:
        _restore(trainer, saved["trainer"], job.output_dir)
    try:
        with stop_signals() as received:
            trainer.register_hooks([StopWhenTold(received, checkpointer, save_on_stop)])
            trainer.train(start_iter, job.max_iter)
    except FloatingPointError as error:
        raise FloatingPointError(_explain_divergence(error, trainer)) from None
    finally:  # Ends its workers; when Python collects the trainer, each would be waited for for ten seconds.
        trainer._data_loader_iter_obj = None
    return results


def evaluate(job: Job, model: nn.Module) -> dict[str, Any]:
    """Evaluate a model on a job's test set, by COCO's measures in percent: `{"bbox": {"AP": ...}, "segm": {...}}`.

    With several test sets, these by the name of each. In processes of a rank above 0 the result is empty.
    """
    results = {}
    for name in job.test_names:
        loader = job.test_loader(name)
        loader.worker_init_fn = leave_interrupts_to_parent
        results[name] = inference_on_dataset(model, loader, job.evaluator(name)) or {}
        for task, measures in results[name].items():
            logger.info("%s of %s: %s", task, name, ", ".join(f"{key} {value:.1f}" for key, value in measures.items()))
    return next(iter(results.values())) if len(results) == 1 else results


def evaluate_weights(job: Job, *, last: bool = False) -> dict[str, Any]:
    """Evaluate a job's weights, or the last checkpoint in its output folder.

    Raises:
        CheckpointError: they are not the weights of the whole model.
        ValueError: there are none, or they were trained on other classes.
    """
    model = build_model(job)
    checkpointer = FocalNetCheckpointer(model, job.output_dir, require_all=True)
    path = checkpointer.get_checkpoint_file() if last else job.weights
    if not path:
        raise ValueError(f"nothing to evaluate: no weights are named, nor is there a training in {job.output_dir}")
    saved = checkpointer.load(path)
    for name in job.test_names:
        DatasetCatalog.get(name)
        if "run" in saved and saved_categories(saved, path) != categories_of(name):
            raise ValueError(f"{path} was trained on other classes than {name} has")
    return evaluate(job, model)


def _build_trainer(job: Job, model: nn.Module, loader: Iterable) -> SimpleTrainer:
    on_gpu = job.device.startswith("cuda")
    if job.mixed_precision and not on_gpu:
        logger.warning("mixed precision is for GPUs; training in float32 on %s", job.device)
    options = dict(job.ddp) if on_gpu else {**job.ddp, "device_ids": None}
    trainer_class = AMPTrainer if job.mixed_precision and on_gpu else SimpleTrainer
    return trainer_class(create_ddp_model(model, **options), loader, job.optimizer(model))


def _build_hooks(
    job: Job,
    trainer: SimpleTrainer,
    checkpointer: FocalNetCheckpointer,
    run: Run,
    results: dict[str, Any],
    *,
    start_iter: int,
) -> list[HookBase]:
    """What goes on around the iterations; each evaluation is put into `results`."""
    checkpointer.add_checkpointable("trainer", trainer)
    checkpointer.add_checkpointable("run", run)

    def run_evaluation() -> dict[str, Any]:
        with raise_on_signals():  # It may take longer than a scheduler waits.
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
            train_hooks.append(BestCheckpointer(best, job.best_metric, resuming=start_iter > 0))
        train_hooks.append(LastingCheckpointer(checkpointer, job.checkpoint_period, job.max_to_keep, start_iter))
        train_hooks.append(hooks.PeriodicWriter(default_writers(job.output_dir, job.max_iter), job.log_period))
    return train_hooks


def _check_same(run: Run, saved: dict[str, Any], output_dir: str) -> None:
    for key, value in run.state_dict().items():
        if saved[key] != value:
            raise ValueError(f"the training in {output_dir} had {key} {saved[key]}, which cannot change to {value}")


def _restore(trainer: SimpleTrainer, saved: dict[str, Any], output_dir: str) -> None:
    """Restore the trainer's state, but not what the config says of optimizer and schedule, which may have changed.

    Raises `ValueError` if the state is of another optimizer, or of other parameters.
    """
    optimizer = trainer.optimizer
    scheduler = next(hook.scheduler for hook in trainer._hooks if isinstance(hook, hooks.LRScheduler))
    wanted = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    rates = list(scheduler.base_lrs)
    groups = saved["optimizer"]["param_groups"]
    if set(groups[0]) - {"params"} != set(wanted[0]):
        raise ValueError(
            f"the training in {output_dir} had another optimizer, which cannot change to {_kind(optimizer)}"
        )
    try:
        trainer.load_state_dict(saved)
    except ValueError as error:
        raise ValueError(f"the training in {output_dir} trained other parameters (as by FREEZE_AT): {error}") from error
    changes = {
        (key, str(old[key]), str(new[key]))
        for old, new in zip(groups, wanted, strict=True)
        for key in new
        if key not in ("lr", "initial_lr") and old[key] != new[key]
    }
    changes |= {
        ("learning rate", f"{a:.4g}", f"{b:.4g}") for a, b in zip(scheduler.base_lrs, rates, strict=True) if a != b
    }
    for key, old, new in sorted(changes):
        logger.warning("resumed with %s %s, where the training had %s", key, new, old)
    # The rates are computed anew, as another schedule changes them too; they are the same if nothing has changed.
    scheduler.base_lrs = rates
    for group, new, rate in zip(optimizer.param_groups, wanted, scheduler.get_lr(), strict=True):
        group.update(new, lr=rate)
    scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]


def _kind(optimizer: torch.optim.Optimizer) -> str:
    """The name of an optimizer, without what detectron2 puts before it to clip gradients."""
    return next(kind.__name__ for kind in type(optimizer).__mro__ if kind.__module__.startswith("torch.optim"))


def _explain_divergence(error: FloatingPointError, trainer: SimpleTrainer) -> str:
    losses = re.findall(r"'(\w+)': (?:np\.float64\()?([-\w.]+)", str(error))
    if losses:
        reason = f"a loss is not finite: {_list_losses(losses)}"
    else:  # It was found before there were losses, in the proposals.
        latest = [(name, value) for name, (value, _) in trainer.storage.latest().items() if "loss" in name]
        reason = f"{error} The losses before it: {_list_losses(latest) or 'none'}"
    return f"stopped at iteration {trainer.iter}: {reason}. Checkpoints are kept"


def _list_losses(losses: Iterable[tuple[str, Any]]) -> str:
    return ", ".join(f"{name} {float(value):.4g}" for name, value in losses)
