"""Settings of optimizer and schedule that a config changes between a training and its resumption.

mmengine restores both from the checkpoint, and so would go on with the old settings without a word.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from typing import Any

from mmengine.logging import print_log
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner

from focalnet_backbone.checkpoints import CheckpointError

PROGRESS = ("_global_step", "_last_value", "base_values", "last_step", "optimizer", "verbose")
"""What a schedule's state holds besides its settings."""


class Settings:
    """What a runner's config says of optimizer and schedule: taken before a checkpoint is read, applied after."""

    def __init__(self, runner: Runner) -> None:
        self.parts = [
            (wrapper, schedulers, _groups(wrapper), [_state(scheduler) for scheduler in schedulers])
            for wrapper, schedulers in _parts(runner)
        ]

    def apply(self, runner: Runner, source: str) -> None:
        """Let what differs from the checkpoint take effect, and say it in one line each.

        Values on a schedule become what they would be now, had the training had the new settings from its beginning.

        Raises `CheckpointError` if the checkpoint has another kind of optimizer, or if a changed schedule depends on
        results of the past.
        """
        for wrapper, schedulers, groups, states in self.parts:
            changes = [*_changed_groups(wrapper, groups, schedulers, source), *_changed_states(schedulers, states)]
            if not changes:
                continue
            for change in dict.fromkeys(changes):
                print_log(f"resumed with {change}", "current", logging.WARNING)
            if any(getattr(scheduler, "need_val_args", False) for scheduler in schedulers):
                raise CheckpointError(f"{source}: a schedule that depends on results cannot change ({changes[0]})")
            _replay(runner, wrapper, schedulers, groups, states)


def _parts(runner: Runner) -> Iterator[tuple[Any, list]]:
    """Each optimizer with its schedules."""
    wrapper, schedulers = runner.optim_wrapper, runner.param_schedulers or []
    if isinstance(wrapper, OptimWrapperDict):
        for name, part in wrapper.items():
            yield part, schedulers.get(name, []) if isinstance(schedulers, dict) else []
    else:
        yield wrapper, schedulers


def _groups(wrapper: Any) -> list[dict[str, Any]]:
    """The settings of each group of parameters."""
    return [
        copy.deepcopy({key: value for key, value in group.items() if key != "params"}) for group in wrapper.param_groups
    ]


def _state(scheduler: Any) -> dict[str, Any]:
    return copy.deepcopy(scheduler.state_dict())


def _changed_groups(wrapper: Any, groups: list[dict], schedulers: list, source: str) -> Iterator[str]:
    # A schedule moves a value away from the initial one, which is the setting.
    moved = {scheduler.param_name for scheduler in schedulers}
    moved |= {"betas"} if "momentum" in moved else set()
    for old, new in zip(_groups(wrapper), groups, strict=True):
        initial = {key for key in {*old, *new} if key.startswith("initial_")}
        if set(old) - initial != set(new) - initial:
            kind = type(wrapper.optimizer).__name__
            raise CheckpointError(
                f"{source} is of a training with another optimizer, which cannot change to {kind}; load_from=... "
                "starts a training from its weights"
            )
        for key in sorted(new.keys() - moved):
            if key in old and old[key] != new[key]:
                yield f"{key.removeprefix('initial_')} {_short(new[key])}, where the training had {_short(old[key])}"
        for key in initial:
            if (key in old) != (key in new):
                now, then = ("a", "none") if key in new else ("no", "one")
                yield f"{now} schedule of {key.removeprefix('initial_')}, where the training had {then}"


def _changed_states(schedulers: list, states: list[dict]) -> Iterator[str]:
    for scheduler, new in zip(schedulers, states, strict=True):
        old = scheduler.state_dict()
        for key in sorted(new.keys() | old.keys()):
            if key not in PROGRESS and old.get(key) != new.get(key):
                yield (
                    f"{key} {_short(new.get(key))} of the schedule of {new['param_name']}, where the training had "
                    f"{_short(old.get(key))}"
                )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _replay(runner: Runner, wrapper: Any, schedulers: list, groups: list[dict], states: list[dict]) -> None:
    """Set groups and schedules to where the new settings would have brought them by now.

    Schedules compute each value from the one before. Their steps are taken on one group of each kind: a model has
    hundreds of groups, and a training some 100,000 iterations.
    """
    kinds = {str(group): number for number, group in reversed([*enumerate(groups)])}
    stand_in = copy.copy(wrapper.optimizer)
    stand_in.param_groups = [{**copy.deepcopy(groups[number]), "params": []} for number in kinds.values()]
    stand_in._global_step = 0
    twins = []
    for scheduler, state in zip(schedulers, states, strict=True):
        twin = copy.copy(scheduler)
        twin.__dict__.update(copy.deepcopy(state), optimizer=stand_in)
        twin.base_values = [state["base_values"][number] for number in kinds.values()]
        twins.append(twin)
    length = len(runner.train_dataloader)
    for iteration in range(1, runner.iter + 1):
        epoch_ends = iteration % length == 0 and iteration // length <= runner.epoch
        for twin in twins:
            if epoch_ends or not twin.by_epoch:
                twin.step()
    places = {kind: place for place, kind in enumerate(kinds)}
    where = [places[str(group)] for group in groups]
    for group, place in zip(wrapper.param_groups, where, strict=True):
        parameters = group["params"]
        group.clear()
        group.update(copy.deepcopy(stand_in.param_groups[place]), params=parameters)
    for scheduler, twin, state in zip(schedulers, twins, states, strict=True):
        own = {key: value for key, value in vars(twin).items() if key not in ("optimizer", "base_values")}
        if isinstance(own.get("_last_value"), list):
            own["_last_value"] = [own["_last_value"][place] for place in where]
        scheduler.__dict__.update(own, base_values=state["base_values"])
