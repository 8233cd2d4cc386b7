"""From a model to a checked file, with its report and, for ONNX, an example that runs it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from focalnet_backbone.export.check import FREE_SIZES, TRACED_SIZE, Comparison, compare, example_input
from focalnet_backbone.export.formats import open_file, write
from focalnet_backbone.export.sources import Exportable
from focalnet_backbone.system.files import whole_file
from focalnet_backbone.system.inputs import read_json
from focalnet_backbone.system.outputs import claim, is_own, result_file

_EXAMPLE = Path(__file__).parent / "run_onnx.py"


@dataclass(frozen=True)
class Export:
    """A file that was written, and how it compares.

    Attributes:
        files: the file itself, its report, and its example if there is one.
        comparisons: one for each input that it was checked on.
    """

    files: tuple[Path, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def difference(self) -> float:
        """The largest of all outputs and inputs."""
        return max(value for comparison in self.comparisons for value in comparison.differences.values())

    def __str__(self) -> str:
        lines = [f"{'input':>18} {'largest difference':>19} {'eager':>9} {'file':>9}"]
        for one in self.comparisons:
            shape, largest = "x".join(map(str, one.shape)), max(one.differences.values())
            lines.append(f"{shape:>18} {largest:19.1e} {one.eager_ms:6.1f} ms {one.file_ms:6.1f} ms")
        return "\n".join(lines)


def outputs_of(path: Path, target: str) -> dict[Path, str]:
    """The files that are written for an export, and what each is."""
    files = {path: "the model", path.with_name(f"{path.stem}_report.json"): "its report"}
    return files | ({path.with_name(f"{path.stem}_example.py"): "its example"} if target == "onnx" else {})


def export_to_file(
    exportable: Exportable, target: str, path: str | Path, *, size: tuple[int, int] | None = None, force: bool = False
) -> Export:
    """Export a model, and run the file beside it on three inputs before it takes its name.

    Args:
        exportable: the model.
        target: "onnx", "pt2", "aoti" or "torchscript".
        path: the file; `NAME_report.json` is written beside it, and for ONNX `NAME_example.py`.
        size: height and width of the only images that the file will take, one at a time; None for any.
        force: replace files that this package did not write.

    Raises:
        FileExistsError: one of the files is there already.
        ValueError, RuntimeError: the model cannot be exported, or the file does not give what the model gives. Nothing
            is left then.
    """
    path = Path(path)
    outputs = outputs_of(path, target)
    previous = _is_earlier_export(path, outputs)
    claim(outputs.items(), force=force or previous)
    sizes = [(1, *size)] * 3 if size else list(FREE_SIZES)
    traced = sizes[0] if size else TRACED_SIZE
    if exportable.one_at_a_time:
        *sizes, traced = [(1, *sides) for _, *sides in [*sizes, traced]]
    with whole_file(path) as unfinished:
        write(exportable, target, unfinished, example_input(exportable, traced), free=not size)
        comparisons = compare(exportable, open_file(target, unfinished), sizes)
    report = {
        "file": path.name,
        "format": target,
        "bytes": path.stat().st_size,
        "sizes": f"{size[0]}x{size[1]}" if size else "free",
        "torch": torch.__version__,
        **exportable.describe(),
        "comparisons": [comparison.as_json() for comparison in comparisons],
    }
    _, report_file, *examples = outputs
    with result_file(report_file) as unfinished:
        unfinished.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for example in examples:
        with result_file(example) as unfinished:
            unfinished.write_text(_EXAMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    return Export(tuple(outputs), tuple(comparisons))


def _is_earlier_export(path: Path, outputs: dict[Path, str]) -> bool:
    """Whether what is there is an earlier export, which may be replaced: its report is this package's and names it."""
    _, report, *examples = outputs
    if not is_own(report) or not all(is_own(example) for example in examples if example.exists()):
        return False
    try:
        told = read_json(report)
        return told["file"] == path.name and told["bytes"] == path.stat().st_size
    except (OSError, ValueError, KeyError, TypeError):
        return False
