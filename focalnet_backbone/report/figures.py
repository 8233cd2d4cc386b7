"""Plots of a report, by plotly: they can be zoomed, and hide and show their lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from focalnet_backbone.report.detection import Detection
from focalnet_backbone.report.runs import Run

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Okabe and Ito's colours, which eyes of all kinds tell apart; and dashes for what shares a colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A8A8A")
_DASHES = ("solid", "dash", "dot", "dashdot")


def draw_curves(runs: Sequence[Run], part: str, title: str, unit: str, shown: Sequence[str] = ()) -> Figure | None:
    """A part of the runs' logs over the iterations: a colour for each run, or for each curve of a single one.

    Args:
        runs: the trainings.
        part: name of an attribute of theirs that holds curves by name.
        title: of the plot.
        unit: what the values are.
        shown: names of the curves that are drawn at first, the others on a click; all if none of them is there.

    Returns None where no run has any.
    """
    names = list(dict.fromkeys(name for run in runs for name in getattr(run, part)))
    if not names:
        return None
    at_first = [name for name in names if name in shown] or names
    figure = _make_figure(title, "iteration", unit)
    for i, run in enumerate(runs):
        for j, (name, curve) in enumerate(getattr(run, part).items()):
            colour = COLOURS[(i if len(runs) > 1 else names.index(name)) % len(COLOURS)]
            dash = _DASHES[(names.index(name) if len(runs) > 1 else j // len(COLOURS)) % len(_DASHES)]
            figure.add_scatter(
                x=[iteration for iteration, _ in curve],
                y=[value for _, value in curve],
                name=f"{run.name}: {name}" if len(runs) > 1 else name,
                mode="lines+markers" if len(curve) < 30 else "lines",
                line={"color": colour, "dash": dash},
                visible=True if name in at_first else "legendonly",
            )
    return figure


def draw_precision(detection: Detection) -> Figure:
    """Precision over recall of each class, at an overlap of 0.5."""
    figure = _make_figure("Precision over recall, at IoU 0.5", "recall", "precision")
    for i, (name, curve) in enumerate(zip(detection.classes, detection.curves, strict=True)):
        if (curve > -1).any():
            line = {"color": COLOURS[i % len(COLOURS)], "dash": _DASHES[i // len(COLOURS) % len(_DASHES)]}
            figure.add_scatter(x=np.linspace(0, 1, len(curve)).tolist(), y=curve.tolist(), name=name, line=line)
    return figure


def draw_confusion(confusion: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """A confusion matrix: a row for each true class, shares of the row as colours, counts on hovering."""
    import plotly.graph_objects as go

    totals = np.maximum(confusion.sum(1, keepdims=True), 1)
    figure = go.Figure(
        go.Heatmap(
            z=(confusion / totals).tolist(),
            x=list(names),
            y=list(names),
            customdata=confusion.tolist(),
            colorscale="Cividis",
            zmin=0,
            zmax=1,
            hovertemplate="true %{y}, found %{x}: %{customdata} (%{z:.0%})<extra></extra>",
        )
    )
    side = max(360, 28 * len(names) + 160)
    figure.update_layout(title=title, height=side, xaxis_title="found", yaxis_title="true", **_LAYOUT)
    figure.update_yaxes(autorange="reversed")
    return figure


_LAYOUT = {
    "template": "none",
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "margin": {"l": 80, "r": 20, "t": 50, "b": 60},
    "font": {"color": "#7a828c"},
}


def _make_figure(title: str, x: str, y: str) -> Figure:
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.update_layout(title=title, xaxis_title=x, yaxis_title=y, height=380, showlegend=True, **_LAYOUT)
    figure.update_xaxes(gridcolor="rgba(128,128,128,.25)", zeroline=False)
    figure.update_yaxes(gridcolor="rgba(128,128,128,.25)", zeroline=False, exponentformat="e")
    return figure
