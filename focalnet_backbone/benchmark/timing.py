"""Times of several functions, taken in turns so that a busy moment of the machine meets them all."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping

import torch


def time_once(run: Callable[[], object], device: torch.device) -> float:
    """Seconds that a call takes: by events on the GPU, by the clock on the CPU."""
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(device)
        start.record()
        run()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end) / 1e3
    start_time = time.perf_counter()
    run()
    return time.perf_counter() - start_time


def alternate(
    runs: Mapping[str, Callable[[], object]], device: torch.device, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Times of each function over rounds in which each is called once, after one round to warm up.

    Rounds end after `seconds`, but there is at least one. Each round starts with another function. Where one round
    takes longer than `seconds`, the one to warm up counts.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    begin = time.perf_counter()
    for round_ in range(rounds + 1):
        gc.collect()
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(time_once(runs[name], device))
        if round_ > 0 and time.perf_counter() - begin > seconds:
            break
        if round_ == 0:
            if time.perf_counter() - begin > seconds:
                return times
            begin = time.perf_counter()
    return {name: series[1:] for name, series in times.items()}


def summarise(times: Mapping[str, list[float]], reference: str) -> dict[str, dict[str, float | list[float]]]:
    """Median seconds by name, and how many times the reference's they are: median and quartiles over the rounds."""
    summary: dict[str, dict[str, float | list[float]]] = {}
    for name, series in times.items():
        ratios = [theirs / ours for theirs, ours in zip(series, times[reference], strict=True)]
        summary[name] = {
            "seconds": statistics.median(series),
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
