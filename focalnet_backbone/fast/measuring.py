"""What is faster on this processor: measured once for it and a version of torch, and remembered (`system.facts`)."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from focalnet_backbone.system.facts import find_out, one_at_a_time
from focalnet_backbone.system.processor import instruction_sets, processor_name

# Seconds to wait for another process that measures the same.
_PATIENCE = 60
_TRIALS = 5
# All trials of a run take so many seconds at least, as other processes stop each for thousandths of one at a time.
_SECONDS = 0.05
# So many times as long is then no accident: further trials are spared.
_CLEARLY = 1.5

_T = TypeVar("_T")
Runs = dict[str, Callable[[], object]]


def recall_times(question: str, measure: Callable[[], dict[str, float]], *, title: str) -> dict[str, float]:
    """The seconds by name that `measure` tells, as remembered for the same question, or measured now.

    Args:
        question: what is measured, with everything that the times depend on besides the processor and torch.
        measure: is called if they are not known.
        title: of the progress bar.
    """
    parts = (processor_name(), *instruction_sets(), torch.backends.cpu.get_cpu_capability(), torch.__version__)
    question = f"{question}: {' '.join(parts)}"
    with one_at_a_time(question, patience=_PATIENCE):
        # The processor is none of a program's files, but torch is.
        return find_out(question, [torch.__file__], lambda _: measure(), title=title)[torch.__file__]


def least_times(make_runs: Callable[[], Runs]) -> dict[str, float]:
    """Seconds that each of some runs takes: the least of a few trials in turns, after one to warm up.

    They are made and run in a thread of its own.
    """
    return in_own_thread(lambda: _least_times(make_runs))


def in_own_thread(work: Callable[[], _T]) -> _T:
    """What `work` returns, done where nobody's modes are: tracing, fake tensors, inference mode, other devices."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def _least_times(make_runs: Callable[[], Runs]) -> dict[str, float]:
    runs = make_runs()
    for run in runs.values():
        run()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    while True:
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - start)
        times = {name: min(trials) for name, trials in taken.items()}
        if min(map(sum, taken.values())) < _SECONDS:
            continue
        if max(times.values()) > _CLEARLY * min(times.values()) or min(map(len, taken.values())) >= _TRIALS:
            return times


def spread(*shape: int) -> torch.Tensor:
    """Numbers from -1 to 1 of that shape, made without drawing random ones, whose order others may rely on."""
    size = torch.Size(shape)
    return torch.linspace(-1, 1, size.numel(), dtype=torch.float32).view(size)
