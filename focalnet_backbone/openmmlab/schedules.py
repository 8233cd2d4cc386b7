"""A training's schedules (`param_scheduler`), looked at before it starts."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from typing import Any

from mmengine.logging import print_log
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner


def prepare_schedules(runner: Runner) -> None:
    """Let schedules that begin after a training's end be none, and find what is wrong with the others.

    mmengine builds schedules when it has loaded everything else, and takes the training's end for that of a schedule
    which names none: a training that is cut short, for a trial, would end there in an error.

    Args:
        runner: a runner with its loop and its optimizer; what its `param_schedulers` say is changed.

    Raises:
        ValueError: a schedule cannot be built as its settings say.
    """
    if not runner.param_schedulers:
        return
    for schedule in _described(runner.param_schedulers):
        by_epoch, begin = schedule.get("by_epoch", True), schedule.get("begin", 0)
        end = runner.max_epochs if by_epoch else runner.max_iters
        if "end" not in schedule and isinstance(begin, int) and begin >= end:
            schedule["end"] = begin + 1
            unit = "epoch" if by_epoch else "iteration"
            print_log(
                f"{schedule.get('type')} of param_scheduler begins after {unit} {begin}, but the training ends after "
                f"{unit} {end}: it does nothing",
                "current",
                logging.WARNING,
            )
    _try(runner)


def _described(schedules: Any) -> Iterator[dict[str, Any]]:
    """The schedules that are settings: of one optimizer, or of several by their names."""
    if isinstance(schedules, dict):
        schedules = [schedules] if "type" in schedules else [*schedules.values()]
    for schedule in schedules if isinstance(schedules, list | tuple) else [schedules]:
        if isinstance(schedule, list | tuple):
            yield from _described(schedule)
        elif isinstance(schedule, dict):
            yield schedule


def _try(runner: Runner) -> None:
    """Build the schedules for a stand-in of the optimizer, as they change the one that they are built for."""
    wrapper = runner.optim_wrapper
    if isinstance(wrapper, OptimWrapperDict):
        return
    stand_in = copy.copy(wrapper)
    stand_in.optimizer = copy.copy(wrapper.optimizer)
    stand_in.optimizer.param_groups = [dict(group) for group in wrapper.optimizer.param_groups]
    runner.optim_wrapper = stand_in
    try:
        runner.build_param_scheduler(runner.param_schedulers)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise ValueError(f"param_scheduler: {text}") from error
    finally:
        runner.optim_wrapper = wrapper
