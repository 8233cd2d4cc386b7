"""The formats: how a model becomes a file of each, and how such a file is run."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from focalnet_backbone.export.sources import INPUT, Exportable
from focalnet_backbone.system.command_line import first_line
from focalnet_backbone.system.inputs import check_file

SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2", "aoti": ".pt2", "torchscript": ".pt"}
"""Ending of a file of each format."""

METADATA = "focalnet"
"""The name under which a file holds its metadata, as JSON."""

_LARGEST_ONNX = (1 << 31) - (1 << 20)
"""Bytes of weights: an ONNX file is one message of protobuf, which ends at 2 GiB."""

Run = Callable[[Tensor], list[Tensor]]


def write(exportable: Exportable, target: str, path: Path, example: Tensor, *, free: bool) -> None:
    """Write a model as a file.

    Args:
        exportable: the model.
        target: one of `SUFFIXES`.
        path: the file.
        example: an input, which is the only size that works unless `free`.
        free: let number, height and width of the images be any.

    Raises:
        ValueError: the format does not hold such a model.
        RuntimeError: a tool that the format needs is not there.
    """
    with _quiet():
        if target == "torchscript":
            _write_torchscript(exportable, path, example, free)
            return
        _check_tools(exportable, target)
        program = _trace(exportable, example, free)
        _WRITERS[target](program, exportable, path)


def open_file(target: str, path: Path) -> Run:
    """A function that runs a file: the input to the outputs, in their order."""
    if target == "onnx":
        session = open_session(path)
        return lambda images: [torch.from_numpy(found) for found in session.run(None, {INPUT: images.numpy()})]
    if target == "torchscript":
        with _quiet():
            scripted = torch.jit.load(str(path))
        return lambda images: list(scripted(images))
    if target == "aoti":
        package = torch._inductor.aoti_load_package(str(path))
        return lambda images: list(package(images))
    module = torch.export.load(str(path)).module()
    return lambda images: list(module(images))


def open_session(path: str | Path, threads: int | None = None) -> Any:
    """An ONNX file in onnxruntime, on as many threads as torch uses. Raises `OSError` or `ValueError` if it is none."""
    check_file(path)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 4  # Its errors are raised, too.
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors have no common class.
        raise ValueError(f"{path} cannot be read by onnxruntime: {error}") from error


def _trace(exportable: Exportable, example: Tensor, free: bool) -> torch.export.ExportedProgram:
    dynamic = torch.export.Dim.DYNAMIC
    sides = (1, 2) if exportable.takes_photos else (2, 3)
    axes = sides if exportable.one_at_a_time else (0, *sides)
    shapes = dict.fromkeys(axes, dynamic) if free else None
    try:
        with torch.no_grad():
            return torch.export.export(exportable.module, (example,), dynamic_shapes=(shapes,), strict=False)
    except Exception as error:
        raise ValueError(f"the model cannot be exported: {first_line(error)}") from error


def _check_tools(exportable: Exportable, target: str) -> None:
    if target == "aoti" and not any(map(shutil.which, ("g++", "clang++", "cl"))):
        raise RuntimeError("AOTInductor needs a C++ compiler (g++ or clang++), and there is none")
    size = sum(p.numel() * p.element_size() for p in exportable.module.parameters())
    if target == "onnx" and size > _LARGEST_ONNX:
        raise ValueError(f"{size / 2**30:.1f} GiB of weights do not fit into an ONNX file; --to pt2 has no limit")


def _write_onnx(program: torch.export.ExportedProgram, exportable: Exportable, path: Path) -> None:
    exported = torch.onnx.export(
        program, dynamo=True, input_names=[INPUT], output_names=list(exportable.outputs), verbose=False
    )
    exported.model.metadata_props[METADATA] = json.dumps(exportable.describe())
    exported.save(str(path), external_data=False)


def _write_pt2(program: torch.export.ExportedProgram, exportable: Exportable, path: Path) -> None:
    content = io.BytesIO()  # On a disk that is full, PyTorch's own writer ends the process.
    torch.export.save(program, content, extra_files={METADATA: json.dumps(exportable.describe())})
    path.write_bytes(content.getbuffer())


def _write_aoti(program: torch.export.ExportedProgram, exportable: Exportable, path: Path) -> None:
    metadata = {METADATA: json.dumps(exportable.describe())}
    content = io.BytesIO()  # As for pt2.
    torch._inductor.aoti_compile_and_package(
        program, package_path=content, inductor_configs={"aot_inductor.metadata": metadata}
    )
    path.write_bytes(content.getbuffer())


_WRITERS = {"onnx": _write_onnx, "pt2": _write_pt2, "aoti": _write_aoti}


def _write_torchscript(exportable: Exportable, path: Path, example: Tensor, free: bool) -> None:
    if free:
        raise ValueError("TorchScript keeps the size that it was traced with: name it (--size HEIGHTxWIDTH)")
    with torch.no_grad():
        traced = torch.jit.trace(exportable.module, example, check_trace=False)
    content = io.BytesIO()  # As for pt2.
    torch.jit.save(traced, content, _extra_files={METADATA: json.dumps(exportable.describe())})
    path.write_bytes(content.getbuffer())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' progress and warnings, and the graph that they print of a model they cannot follow."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        unread = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(unread), contextlib.redirect_stderr(unread):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
