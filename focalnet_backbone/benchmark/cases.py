"""One case (a variant at a size): what is measured, and how."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from focalnet_backbone.benchmark.contenders import OURS, Contender, make_checkpointed, make_contenders, make_fused
from focalnet_backbone.benchmark.floor import make_floor
from focalnet_backbone.benchmark.memory import peak_bytes, saved_bytes
from focalnet_backbone.benchmark.timing import alternate, summarise
from focalnet_backbone.fast.kernels import TRITON_SWITCH
from focalnet_backbone.network.config import FocalNetConfig

CPU = torch.device("cpu")
MEASURES = ("forward", "compiled", "training", "saving", "memory", "autocast", "autocast-training")
GPU_MEASURES = ("graph", "triton", "triton-training")


@dataclass(frozen=True)
class Case:
    """A variant at a size, and for how long to measure it.

    Attributes:
        variant: name of the variant, for the report.
        config: its architecture.
        size: height and width of the images in pixels.
        batch_size: number of images.
        device: where to run.
        dtype: what autocast computes in; float32 is no autocast.
        rounds: rounds in which every implementation is timed once, at most.
        seconds: after which no new round starts.

    Raises:
        ValueError: the last stage's stride does not divide the size. There, timm's features have another size.
    """

    variant: str
    config: FocalNetConfig
    size: tuple[int, int]
    batch_size: int = 1
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    rounds: int = 10
    seconds: float = 20.0

    def __post_init__(self) -> None:
        stride = self.config.stage_strides[-1]
        if any(side < stride or side % stride for side in self.size):
            height, width = self.size
            raise ValueError(f"height and width must be multiples of the last stride {stride}, got {height}x{width}")

    def images(self) -> Tensor:
        """Random images `(N, C, H, W)`."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(self.batch_size, self.config.num_channels, *self.size, generator=generator)
        return images.to(self.device)

    def autocast(self, dtype: torch.dtype | None = None) -> torch.autocast:
        """The context in which to compute, in the case's type or in another."""
        dtype = dtype or self.dtype
        enabled = dtype != torch.float32
        return torch.autocast(self.device.type, dtype if enabled else torch.bfloat16, enabled=enabled)


def measure_case(case: Case, measures: Sequence[str] = MEASURES) -> dict[str, Any]:
    """What was asked for, by name: times in seconds with their ratios to ours, bytes, relative errors."""
    contenders, x = make_contenders(case.config, case.device), case.images()
    result: dict[str, Any] = {
        "variant": case.variant,
        "size": list(case.size),
        "batch_size": case.batch_size,
        "dtype": str(case.dtype).removeprefix("torch."),
        "difference": _largest_difference(case, contenders, x),
    }
    functions: dict[str, Callable[..., dict[str, Any]]] = {
        "forward": _measure_forward,
        "compiled": _measure_compiled,
        "training": _measure_training,
        "saving": _measure_saving,
        "graph": _measure_graph,
        "triton": _measure_triton,
        "triton-training": _measure_triton_training,
        "memory": _measure_memory,
        "autocast": _measure_autocast,
        "autocast-training": _measure_autocast_training,
    }
    for measure in measures:
        gc.collect()
        result[measure] = functions[measure](case, contenders, x)
    return result


def measure_scaling(case: Case, sides: Sequence[int]) -> dict[str, Any]:
    """Seconds and peak bytes of our forward pass by side of a square image, and how they grow with the pixels.

    `exponent` is the slope of the logarithms (1 for linear growth), `r_squared` the fit of a straight line to the
    values themselves.
    """
    ours = make_contenders(case.config, case.device)[0]
    ours.model.eval()
    seconds, peaks = [], []
    for side in sides:
        x = torch.randn(case.batch_size, case.config.num_channels, side, side, device=case.device)
        run = partial(_forward, case, ours, x)
        times = alternate({OURS: run}, case.device, case.rounds, case.seconds)[OURS]
        seconds.append(float(np.median(times)))
        peaks.append(peak_bytes(run, case.device))
    pixels = [side * side for side in sides]
    result: dict[str, Any] = {"variant": case.variant, "sides": list(sides), "seconds": seconds, "peak": peaks}
    result["seconds_fit"] = _fit(pixels, seconds)
    result["peak_fit"] = None if None in peaks else _fit(pixels, peaks)
    return result


def _fit(pixels: list[int], values: list[float]) -> dict[str, float]:
    x, y = np.array(pixels, dtype=float), np.array(values, dtype=float)
    exponent = np.polyfit(np.log(x), np.log(y), 1)[0]
    slope, offset = np.polyfit(x, y, 1)
    unexplained = ((y - slope * x - offset) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    return {"exponent": float(exponent), "per_pixel": float(slope), "r_squared": float(1 - unexplained)}


@torch.no_grad()
def _forward(case: Case, contender: Contender, x: Tensor) -> Tensor:
    with case.autocast():
        return contender.run(x)


def _training_loss(case: Case, contender: Contender, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    with case.autocast(dtype):
        return contender.run(x).float().square().mean()


def _step(case: Case, contender: Contender, x: Tensor, dtype: torch.dtype | None = None) -> None:
    contender.model.zero_grad(set_to_none=True)
    _training_loss(case, contender, x, dtype).backward()


@contextmanager
def _plain_blocks() -> Iterator[None]:
    """Our blocks by the plain formulation and plain autograd."""
    with mock.patch("focalnet_backbone.network.blocks.may_bypass_submodules", return_value=False):
        yield


def _step_plainly(case: Case, contender: Contender, x: Tensor) -> None:
    with _plain_blocks():
        _step(case, contender, x)


def _largest_difference(case: Case, contenders: list[Contender], x: Tensor) -> float:
    """The largest relative difference of a peer's features from ours."""
    for contender in contenders:
        contender.model.eval()
    ours, *others = (_forward(case, contender, x).float() for contender in contenders)
    return max((_relative_error(other, ours) for other in others), default=0.0)


def _relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def _measure_forward(case: Case, contenders: list[Contender], x: Tensor) -> dict[str, Any]:
    for contender in contenders:
        contender.model.eval()
    contenders = [*contenders, make_fused(contenders[0])]
    runs: dict[str, Callable[[], object]] = {c.name: partial(_forward, case, c, x) for c in contenders}
    with case.autocast():
        floor = make_floor(contenders[0], x)
    runs["floor"] = torch.no_grad()(floor)
    return summarise(alternate(runs, case.device, case.rounds, case.seconds), OURS)


def _measure_compiled(case: Case, contenders: list[Contender], x: Tensor) -> dict[str, Any]:
    torch._dynamo.reset()
    runs: dict[str, Callable[[], object]] = {}
    for contender in contenders:
        contender.model.eval()
        if contender.name != "transformers":
            compiled = Contender(contender.name, contender.model, torch.compile(contender.run))
            runs[contender.name] = partial(_forward, case, compiled, x)
            runs[f"{contender.name}, eager"] = partial(_forward, case, contender, x)
    # Compiling is no part of any round.
    for run in runs.values():
        run()
    return summarise(alternate(runs, case.device, case.rounds, case.seconds), OURS)


def _measure_training(case: Case, contenders: list[Contender], x: Tensor) -> dict[str, Any]:
    runs: dict[str, Callable[[], object]] = {}
    for contender in contenders:
        contender.model.train()
        runs[contender.name] = partial(_step, case, contender, x)
    summary = summarise(alternate(runs, case.device, case.rounds, case.seconds), OURS)
    for contender in contenders:
        contender.model.zero_grad(set_to_none=True)
    return summary


def _measure_saving(case: Case, contenders: list[Contender], x: Tensor) -> dict[str, Any]:
    """Our training step beside the same by the plain formulation, which keeps all that autograd keeps."""
    ours = contenders[0]
    ours.model.train()
    runs = {OURS: partial(_step, case, ours, x), "ours, plain autograd": partial(_step_plainly, case, ours, x)}
    return summarise(alternate(runs, case.device, case.rounds, case.seconds), OURS)


def _measure_triton(case: Case, contenders: list[Contender], x: Tensor) -> dict[str, Any]:
    """Our forward pass by Triton's kernels, beside the same without them."""
    contenders[0].model.eval()
    return _compare_triton(case, partial(_forward, case, contenders[0], x))


def _measure_triton_training(case: Case, contenders: list[Contender], x: Tensor) -> dict[str, Any]:
    """Our training step likewise."""
    contenders[0].model.train()
    return _compare_triton(case, partial(_step, case, contenders[0], x))


def _compare_triton(case: Case, run: Callable[[], object]) -> dict[str, Any]:
    def call(asked: str) -> None:
        with mock.patch.dict(os.environ, {TRITON_SWITCH: asked}):
            run()

    runs = {OURS: partial(call, "0"), "ours, Triton": partial(call, "1")}
    return summarise(alternate(runs, case.device, case.rounds, case.seconds), OURS)


def _measure_graph(case: Case, contenders: list[Contender], x: Tensor) -> dict[str, Any]:
    """Our forward pass, beside a graph of it that the GPU launches by itself."""
    contenders[0].model.eval()
    run = partial(_forward, case, contenders[0], x)
    with torch.cuda.device(case.device):
        runs = {OURS: run, "ours, graph": _capture(run).replay}
        return summarise(alternate(runs, case.device, case.rounds, case.seconds), OURS)


def _capture(run: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """The graph of a call, after some beside the current stream, as PyTorch's notes on graphs have it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph


def _measure_memory(case: Case, contenders: list[Contender], x: Tensor) -> dict[str, Any]:
    result = {}
    for contender in [*contenders, make_checkpointed(contenders[0])]:
        contender.model.train()
        saved = saved_bytes(contender.model, partial(_training_loss, case, contender, x))
        peak = peak_bytes(partial(_step, case, contender, x), case.device)
        contender.model.zero_grad(set_to_none=True)
        result[contender.name] = {"saved": saved, "peak": peak}
    for entry in result.values():
        entry["ratio"] = entry["saved"] / result[OURS]["saved"]
    return result


def _measure_autocast(case: Case, contenders: list[Contender], x: Tensor) -> dict[str, Any]:
    """Our forward pass in bfloat16, the reference here, beside float32."""
    ours = contenders[0]
    ours.model.eval()

    @torch.no_grad()
    def run(dtype: torch.dtype) -> Tensor:
        with case.autocast(dtype):
            return ours.run(x)

    runs = {OURS: partial(run, torch.bfloat16), "ours, float32": partial(run, torch.float32)}
    summary = summarise(alternate(runs, case.device, case.rounds, case.seconds), OURS)
    return {**summary, "error": _relative_error(run(torch.bfloat16).float(), run(torch.float32))}


def _measure_autocast_training(case: Case, contenders: list[Contender], x: Tensor) -> dict[str, Any]:
    """Our training step in bfloat16, the reference here, beside float32."""
    ours = contenders[0]
    ours.model.train()
    types = {OURS: torch.bfloat16, "ours, float32": torch.float32}
    runs = {name: partial(_step, case, ours, x, dtype) for name, dtype in types.items()}
    return summarise(alternate(runs, case.device, case.rounds, case.seconds), OURS)
