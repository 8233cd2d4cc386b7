"""Times of several functions, taken in turns so that a busy moment of the machine meets them all."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping

import torch

# A GPU's events are too coarse, and its calls too short, to time one alone: calls of so many seconds together
# are timed, after as many as it takes to load kernels, choose among them and raise the clocks.
_GPU_SECONDS = 0.05
_GPU_WARM_UP = 3
_MOST_CALLS = 100


def time_once(run: Callable[[], object], device: torch.device, calls: int = 1) -> float:
    """Seconds that a call takes, of several in a row: by events on the GPU, by the clock on the CPU."""
    if device.type == "cuda":
        # Events are of the current device.
        with torch.cuda.device(device):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            start.record()
            _repeat(run, calls)
            end.record()
            torch.cuda.synchronize()
        return start.elapsed_time(end) / 1e3 / calls
    start_time = time.perf_counter()
    _repeat(run, calls)
    return (time.perf_counter() - start_time) / calls


def _repeat(run: Callable[[], object], calls: int) -> None:
    for _ in range(calls):
        run()


def calls_per_timing(run: Callable[[], object], device: torch.device) -> int:
    """How many calls to time together: one on the CPU; on a GPU, which is warmed up by this, many short ones."""
    if device.type != "cuda":
        return 1
    _repeat(run, _GPU_WARM_UP)
    return max(1, min(_MOST_CALLS, round(_GPU_SECONDS / time_once(run, device))))


def alternate(
    runs: Mapping[str, Callable[[], object]], device: torch.device, rounds: int, seconds: float, *, rest: float = 0.0
) -> dict[str, list[float]]:
    """Times of each function over rounds in which each is timed once, after one round to warm up.

    On the CPU it is called once a round, on a GPU as often as `calls_per_timing` says. Rounds end after `seconds`, but
    there is at least one. Each round has an order of its own, so that none always follows the same other one. Where one
    round takes longer than `seconds`, the one to warm up counts. Before each function there is a `rest` of so many
    seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    names, order = list(runs), random.Random(0)
    calls = {name: calls_per_timing(run, device) for name, run in runs.items()}
    begin = time.perf_counter()
    for round_ in range(rounds + 1):
        gc.collect()
        for name in order.sample(names, len(names)):
            time.sleep(rest)
            times[name].append(time_once(runs[name], device, calls[name]))
        if round_ > 0 and time.perf_counter() - begin > seconds:
            break
        if round_ == 0:
            if time.perf_counter() - begin > seconds:
                return times
            begin = time.perf_counter()
    return {name: series[1:] for name, series in times.items()}


def summarise(times: Mapping[str, list[float]], reference: str) -> dict[str, dict[str, float | list[float]]]:
    """Median seconds by name with their quartiles (`spread`), and how many times the reference's they are: median and
    quartiles over the rounds.
    """
    summary: dict[str, dict[str, float | list[float]]] = {}
    for name, series in times.items():
        ratios = [theirs / ours for theirs, ours in zip(series, times[reference], strict=True)]
        summary[name] = {
            "seconds": statistics.median(series),
            "spread": quartiles(series),
            "ratio": statistics.median(ratios),
            "quartiles": quartiles(ratios),
            "rounds": len(series),
        }
    return summary


def quartiles(values: list[float]) -> list[float]:
    """The first and the third quartile."""
    if len(values) == 1:
        return values * 2
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return [low, high]
