"""The results of races as a table in Markdown and as a picture."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"focalnet": "#0072b2", "swin": "#d55e00", "convnext": "#009e73", "resnet": "#7f7f7f"}
"""Told apart by the colour-blind too (Okabe and Ito)."""

NAMES = {"focalnet": "FocalNet", "swin": "Swin", "convnext": "ConvNeXt", "resnet": "ResNet"}


def group(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Results by race and by entrant, in the order in which they come."""
    grouped: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for result in results:
        grouped.setdefault(result["race"], {}).setdefault(result["entrant"], []).append(result)
    return grouped


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation, which is 0 of one value."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _describe(values: Sequence[float]) -> str:
    mean, spread = mean_and_spread(values)
    return f"{mean:.1f} ± {spread:.1f}" if len(values) > 1 else f"{mean:.1f}"


def format_race(name: str, entrants: dict[str, list[dict[str, Any]]]) -> str:
    """A race's table: a row an entrant, the best by the first metric at the top; mean, deviation and single values."""
    metrics = list(next(iter(entrants.values()))[0]["metrics"])
    head = [name, *metrics, "of the seeds", "parameters (M)", "multiply-accumulates (G)", "training step (ms)"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for entrant in _ranked(entrants):
        runs = entrants[entrant]
        cells = [_describe([run["metrics"][metric] for run in runs]) for metric in metrics]
        singles = ", ".join(f"{run['metrics'][metrics[0]]:.1f}" for run in runs)
        seconds = [run["seconds"] for run in runs if run["seconds"]]
        time = f"{statistics.median(seconds) * 1e3:.0f}" if seconds else "-"
        costs = [f"{runs[0]['parameters'] / 1e6:.2f}", f"{runs[0]['macs'] / 1e9:.3f}", time]
        lines.append([NAMES.get(entrant, entrant), *cells, singles, *costs])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _ranked(entrants: dict[str, list[dict[str, Any]]]) -> list[str]:
    metric = next(iter(next(iter(entrants.values()))[0]["metrics"]))
    return sorted(entrants, key=lambda name: -statistics.mean(run["metrics"][metric] for run in entrants[name]))


def plot_races(races: dict[str, dict[str, list[dict[str, Any]]]]) -> Figure:
    """A row a race: its first metric over parameters, multiply-accumulates and the time of a training step.

    Small dots are seeds, large ones their mean, with the deviation as a line.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.4 * len(races)), layout="constrained")
    axes = figure.subplots(len(races), 3, squeeze=False, sharey="row")
    costs = {
        "backbone's parameters (M)": ("parameters", 1e6),
        "backbone's multiply-accumulates (G)": ("macs", 1e9),
        "training step (ms)": ("seconds", 1e-3),
    }
    for row, (name, entrants) in zip(axes, races.items(), strict=True):
        metric = next(iter(next(iter(entrants.values()))[0]["metrics"]))
        for axis, (title, (key, unit)) in zip(row, costs.items(), strict=True):
            for entrant, runs in entrants.items():
                runs = [run for run in runs if run[key]]
                if runs:
                    _draw(axis, entrant, [run[key] / unit for run in runs], [run["metrics"][metric] for run in runs])
            axis.set_xlabel(title, fontsize=9)
            axis.set_xlim(0, 1.1 * axis.dataLim.x1)
            axis.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel(f"{metric} (%)")
        row[0].set_title(name, loc="left", fontsize=10)
    # A race that goes on may lack some of the entrants of another.
    shown: dict[str, Any] = {}
    for axis in axes[:, -1]:
        handles, labels = axis.get_legend_handles_labels()
        shown.update(zip(labels, handles, strict=True))
    axes[0, -1].legend(shown.values(), shown.keys(), fontsize=8, frameon=False)
    return figure


def _draw(axis: Any, entrant: str, costs: list[float], values: list[float]) -> None:
    colour = COLOURS.get(entrant, "black")
    mean, spread = mean_and_spread(values)
    cost = statistics.median(costs)
    axis.plot([cost] * len(values), values, ".", color=colour, alpha=0.5, markersize=5)
    axis.errorbar(cost, mean, spread, fmt="o", color=colour, capsize=3, label=NAMES.get(entrant, entrant))
