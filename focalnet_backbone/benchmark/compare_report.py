"""A comparison as a table in Markdown and as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = {
    "parameters (M)": ("size", "parameters", 1e6),
    "multiply-accumulates (G)": ("size", "macs", 1e9),
    "forward (ms)": ("forward", "seconds", 1e-3),
    "training step (ms)": ("training", "seconds", 1e-3),
    "kept for the backward pass (MB)": ("memory", "saved", 1e6),
    "peak of a training step (MB)": ("memory", "peak", 1e6),
}


def format_comparison(names: list[str], results: dict[str, Any]) -> str:
    """The table in Markdown: a row a subject; published values in brackets, times with their quartiles."""
    panels = _measured(names, results)
    lines = [["", "published accuracy", *panels], ["---", "---", *["---:"] * len(panels)]]
    for name in names:
        lines.append([name, _accuracy(name, results) or "-", *(_cell(name, results, *p) for p in panels.values())])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def format_parts(names: list[str], results: dict[str, Any]) -> str:
    """A table in Markdown of where the time of whole models goes, in milliseconds; empty where that was not taken."""
    measured = {
        title: results.get(measure, {})
        for title, measure in (("forward", "forward"), ("training step", "training"))
        if all("parts" in results.get(measure, {}).get(name, {}) for name in names)
    }
    parts = list(
        dict.fromkeys(part for entries in measured.values() for name in names for part in entries[name]["parts"])
    )
    lines = [["", *(f"{title}: {part} (ms)" for title in measured for part in parts)]]
    lines.append(["---", *["---:"] * (len(lines[0]) - 1)])
    for name in names:
        cells = (entries[name]["parts"].get(part, 0.0) for entries in measured.values() for part in parts)
        lines.append([name, *(f"{seconds * 1e3:,.0f}" for seconds in cells)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) if measured else ""


def _measured(names: list[str], results: dict[str, Any]) -> dict[str, tuple[str, str, float]]:
    return {title: panel for title, panel in _PANELS.items() if set(names) <= set(results.get(panel[0], {}))}


def _accuracy(name: str, results: dict[str, Any]) -> str | None:
    return results.get("size", {}).get(name, {}).get("published", {}).get("accuracy")


def _cell(name: str, results: dict[str, Any], measure: str, key: str, unit: float) -> str:
    entry = results[measure][name]
    if entry[key] is None:
        return "unknown"
    value = entry[key] / unit
    text = f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"
    if "quartiles" in entry:
        low, high = (second / unit for second in entry["quartiles"])
        return f"{text} [{low:,.1f}, {high:,.1f}]" if high < 1000 else f"{text} [{low:,.0f}, {high:,.0f}]"
    published = entry.get("published", {}).get(key)
    return f"{text} ({published:g})" if published else text


def plot_comparison(names: list[str], results: dict[str, Any]) -> Figure:
    """A panel for each column of the table, a bar for each subject; lines at the bars' ends are quartiles."""
    from matplotlib.figure import Figure

    panels = _measured(names, results)
    rows = -(-len(panels) // 3)
    figure = Figure(figsize=(13, rows * (0.9 + 0.28 * max(len(names), 3))), layout="constrained")
    axes = figure.subplots(rows, 3, sharey=True, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (title, (measure, key, unit)) in zip(axes.flat, panels.items(), strict=False):
        entries = [results[measure][name] for name in names]
        values = [(entry[key] or 0) / unit for entry in entries]
        colours = ["#1b6ca8" if "focalnet" in name else "#9aa0a6" for name in names]
        axis.barh(range(len(names)), values, color=colours, height=0.7)
        for row, (entry, value) in enumerate(zip(entries, values, strict=True)):
            low, high = (second / unit for second in entry.get("quartiles", (0, 0)))
            axis.plot([low, high], [row, row], color="black", linewidth=1.5)
            axis.text(max(value, high), row, f" {value:,.1f}", fontsize=7, va="center")
        axis.set_yticks(range(len(names)), [_label(name, results) for name in names], fontsize=7)
        axis.set_xlim(0, max(values, default=1) * 1.2 or 1)
        axis.set_title(title, fontsize=9)
        axis.tick_params(axis="x", labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].invert_yaxis()
    return figure


def _label(name: str, results: dict[str, Any]) -> str:
    accuracy = _accuracy(name, results)
    return f"{name}\n{accuracy}" if accuracy else name
