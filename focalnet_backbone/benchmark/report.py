"""Measurements as text and as a picture."""

from __future__ import annotations

import importlib.util
import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from focalnet_backbone.benchmark.contenders import OURS, PEERS
from focalnet_backbone.fast import native
from focalnet_backbone.system.processor import instruction_sets, processor_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {
    OURS: "#1b6ca8",
    "timm": "#e08e2b",
    "transformers": "#b8405e",
    "ours, fused": "#6fb1de",
    "floor": "#9aa0a6",
    "ours, use_checkpoint": "#123f5f",
}
_TITLES = {
    "forward": "forward, no gradients",
    "compiled": "forward, compiled",
    "training": "training step",
    "saving": "training step, with and without the saving",
    "graph": "forward, launched call by call and as a graph",
    "triton": "forward, with and without Triton's kernels",
    "triton-training": "training step, with and without Triton's kernels",
    "autocast": "forward, bfloat16 autocast",
    "autocast-training": "training step, bfloat16 autocast",
}


def describe_environment(device: torch.device) -> dict[str, Any]:
    """The processor or GPU, its threads, and the versions of what is compared."""
    versions = {name: version(name) for name in ("torch", *PEERS) if importlib.util.find_spec(name)}
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device), "gpu": _describe_gpu(device), "versions": versions}
    return {
        "device": processor_name(),
        "instruction_sets": list(instruction_sets()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "depthwise": "compiled" if native.is_used() else "torch",
        "versions": versions,
    }


def _describe_gpu(device: torch.device) -> dict[str, str]:
    """What a GPU's times depend on beside its name."""
    tf32 = {"products": torch.backends.cuda.matmul.allow_tf32, "convolutions": torch.backends.cudnn.allow_tf32}
    return {
        "compute capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
        "CUDA": str(torch.version.cuda),
        "cuDNN": str(torch.backends.cudnn.version()),
        "TF32 in": " and ".join(name for name, allowed in tf32.items() if allowed) or "nothing",
    }


def format_environment(environment: dict[str, Any]) -> str:
    """What `describe_environment` found, as a line of text."""
    parts = [environment["device"]]
    if "threads" in environment:
        sets = " ".join(environment.get("instruction_sets", ()))
        capability = environment["capability"] + (f" ({sets})" if sets else "")
        parts += [f"{environment['cores']} cores", f"{environment['threads']} threads", capability]
        parts += ["compiled depth-wise convolutions"] if environment.get("depthwise") == "compiled" else []
    parts += [f"{name} {value}" for name, value in environment.get("gpu", {}).items()]
    return ", ".join([*parts, *(f"{name} {version}" for name, version in environment["versions"].items())])


def format_case(result: dict[str, Any]) -> str:
    """A case's measurements as lines of text."""
    height, width = result["size"]
    lines = [
        f"{result['variant']}, {result['batch_size']} x {height}x{width}, {result['dtype']}: "
        f"features differ by {result['difference']:.1e}"
    ]
    for measure, title in _TITLES.items():
        if measure in result:
            entries = {name: entry for name, entry in result[measure].items() if name != "error"}
            lines.append(f"  {title} ({entries[OURS]['rounds']} rounds)")
            for name, entry in entries.items():
                low, high = entry["quartiles"]
                ratio = "" if name == OURS else f"{entry['ratio']:8.2f}x ours [{low:.2f}, {high:.2f}]"
                lines.append(f"    {name:<22}{_milliseconds(entry['seconds']):>10} ms{ratio}")
        if "error" in result.get(measure, ()):
            lines.append(f"    relative error of the features {result[measure]['error']:.4f}")
    if "memory" in result:
        lines.append("  training step: kept for the backward pass, peak")
        for name, entry in result["memory"].items():
            peak = "unknown" if entry["peak"] is None else f"{entry['peak'] / 1e6:,.0f} MB"
            ratio = "" if name == OURS else f"{entry['ratio']:8.2f}x ours"
            lines.append(f"    {name:<22}{entry['saved'] / 1e6:10,.0f} MB{peak:>14}{ratio}")
    return "\n".join(lines)


def _milliseconds(seconds: float) -> str:
    """Whole milliseconds of a processor's times, three digits of a GPU's."""
    milliseconds = seconds * 1e3
    return f"{milliseconds:,.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"


def format_table(cases: list[dict[str, Any]]) -> str:
    """The cases as a table in Markdown: what ours takes, and how many times as much the others take."""
    columns = {
        "case": _title,
        "forward": lambda case: _times(case, "forward", "timm", "transformers"),
        "fused": lambda case: _ratio(case, "forward", "ours, fused"),
        "floor": lambda case: _ratio(case, "forward", "floor"),
        "compiled": lambda case: _times(case, "compiled", "timm", "timm, eager"),
        "bfloat16": lambda case: _times(case, "autocast", "ours, float32"),
        "training step": lambda case: _times(case, "training", "timm", "transformers"),
        "bfloat16 training step": lambda case: _times(case, "autocast-training", "ours, float32"),
        "plain autograd": lambda case: _ratio(case, "saving", "ours, plain autograd"),
        "graph": lambda case: _ratio(case, "graph", "ours, graph"),
        "Triton": lambda case: _ratio(case, "triton", "ours, Triton"),
        "Triton, training step": lambda case: _ratio(case, "triton-training", "ours, Triton"),
        "kept for backward": lambda case: _times(case, "memory", "timm", "transformers", "ours, use_checkpoint"),
    }
    rows = [[column(case) for column in columns.values()] for case in cases]
    used = [i for i, _ in enumerate(columns) if any(row[i] for row in rows)]
    lines = [list(columns), ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(line[i] for i in used) + " |" for line in lines)


def _times(case: dict[str, Any], measure: str, *others: str) -> str:
    """Ours, and in brackets the ratios of the others."""
    if measure not in case:
        return ""
    ours = case[measure][OURS]
    amount = f"{ours['saved'] / 1e6:,.0f} MB" if measure == "memory" else f"{_milliseconds(ours['seconds'])} ms"
    ratios = [_ratio(case, measure, name) for name in others]
    return f"{amount} ({', '.join(filter(None, ratios))})"


def _ratio(case: dict[str, Any], measure: str, name: str) -> str:
    entry = case.get(measure, {}).get(name)
    return f"{entry['ratio']:.2f}x" if entry else ""


def _title(case: dict[str, Any]) -> str:
    height, width = case["size"]
    return f"{case['variant'].removeprefix('focalnet_')}, {case['batch_size']} x {height}x{width}"


def format_scaling(result: dict[str, Any]) -> str:
    """How time and memory grow, as lines of text."""
    lines = [f"{result['variant']}, forward by image side"]
    for side, seconds, peak in zip(result["sides"], result["seconds"], result["peak"], strict=True):
        memory = "" if peak is None else f"{peak / 1e6:12,.0f} MB"
        lines.append(f"    {side:>5} px{_milliseconds(seconds):>12} ms{memory}")
    for name in ("seconds", "peak"):
        fit = result[f"{name}_fit"]
        if fit:
            lines.append(
                f"  {name} ~ pixels^{fit['exponent']:.3f}, straight line through the values: R2 {fit['r_squared']:.4f}"
            )
    return "\n".join(lines)


def plot(cases: list[dict[str, Any]], scaling: dict[str, Any] | None = None) -> Figure:
    """One panel a measurement: bars by case and implementation, relative to ours; and the growth with the pixels."""
    from matplotlib.figure import Figure

    panels = [name for name in ("forward", "training", "memory") if any(name in case for case in cases)]
    count = len(panels) + (scaling is not None)
    figure = Figure(figsize=(4.6 * max(count, 1), 0.9 + 0.62 * max(len(cases), 4)), layout="constrained")
    axes = figure.subplots(1, max(count, 1), squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=False):
        _draw_bars(axis, panel, [case for case in cases if panel in case])
    if scaling is not None:
        _draw_scaling(axes[-1], scaling)
    return figure


def _draw_bars(axis: Any, panel: str, cases: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for case in cases for name in case[panel] if name in _COLOURS))
    thickness = 0.8 / len(names)
    for row, name in enumerate(names):
        for line, case in enumerate(cases):
            entry = case[panel].get(name)
            if entry is None:
                continue
            value = entry["ratio"]
            place = line + (row - (len(names) - 1) / 2) * thickness
            label = name if line == 0 else None
            axis.barh(place, value, thickness * 0.92, color=_COLOURS[name], label=label)
            amount = f"{_milliseconds(entry['seconds'])} ms" if panel != "memory" else f"{entry['saved'] / 1e6:,.0f} MB"
            axis.text(value + 0.02, place, amount, va="center", fontsize=6)
    labels = [
        f"{c['variant'].removeprefix('focalnet_')}\n{c['batch_size']} x {c['size'][0]}x{c['size'][1]}" for c in cases
    ]
    axis.set_yticks(range(len(cases)), labels, fontsize=7)
    axis.invert_yaxis()
    axis.set_xlim(0, axis.get_xlim()[1] * 1.12)
    axis.axvline(1, color="0.4", linewidth=0.8)
    title = "kept for the backward pass" if panel == "memory" else _TITLES[panel]
    axis.set_title(f"{title}, relative to ours", fontsize=9)
    axis.tick_params(axis="x", labelsize=7)
    axis.legend(fontsize=6, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=3, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_scaling(axis: Any, scaling: dict[str, Any]) -> None:
    pixels = [side * side / 1e6 for side in scaling["sides"]]
    fit = scaling["seconds_fit"]
    axis.loglog(
        pixels, scaling["seconds"], "o-", color=_COLOURS[OURS], label=f"seconds, ~ pixels^{fit['exponent']:.2f}"
    )
    if scaling["peak_fit"]:
        label = f"peak memory in GB, ~ pixels^{scaling['peak_fit']['exponent']:.2f}"
        axis.loglog(pixels, [peak / 1e9 for peak in scaling["peak"]], "s-", color=_COLOURS["timm"], label=label)
    axis.set_xticks(pixels, scaling["sides"])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("side of the image in pixels", fontsize=8)
    axis.set_title(f"{scaling['variant']}, forward", fontsize=9)
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=7, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
