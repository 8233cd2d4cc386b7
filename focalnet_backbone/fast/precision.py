"""Whether autocast's bfloat16 or float16 is worth it on this processor, and float32 in its place where it is not.

Processors without instructions for these types take many times as long as in float32, and some that have them take
longer all the same. So it is measured: once for a processor, a version of torch, a type, with and without gradients;
the times are kept in the package's folder of what is remembered (`system.facts`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor, nn

from focalnet_backbone.fast.dispatch import needs_gradients
from focalnet_backbone.fast.inference import compute_block
from focalnet_backbone.fast.training import run_branch
from focalnet_backbone.network.layers import Mlp
from focalnet_backbone.network.modulation import FocalModulation
from focalnet_backbone.system.facts import find_out, one_at_a_time
from focalnet_backbone.system.processor import instruction_sets, processor_name
from focalnet_backbone.system.switches import read_variable

logger = logging.getLogger(__name__)

SWITCH = "FOCALNET_CPU_AUTOCAST"
"""Environment variable: "on" to compute in autocast's type, "off" to compute in float32, "auto" (as if it were not
there) for the faster one."""

LOW = (torch.bfloat16, torch.float16)
_TRIALS = 5
# So many times as long is no accident: further trials are spared.
_CLEARLY = 1.5
# Large enough for the kernels of whole networks, small enough for a few milliseconds in float32.
_SIDE, _DIM = 16, 192


def autocast_to_leave(module: nn.Module, x: Tensor) -> torch.dtype | None:
    """The type of autocast, if the module has to leave it since it is faster in float32; else None.

    That is so within autocast on a CPU, for weights that are all float32. Who leaves it computes with autocast off and
    the input in float32, and gives results of the types that autocast promises.

    Raises:
        ValueError: the environment variable `FOCALNET_CPU_AUTOCAST` has a value that it cannot have.
    """
    if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return None
    dtype = torch.get_autocast_dtype("cpu")
    if dtype not in LOW or x.dtype not in (torch.float32, *LOW):
        return None
    if any(p.dtype != torch.float32 or p.device.type != "cpu" for p in module.parameters()):
        return None
    name = str(dtype).removeprefix("torch.")
    return None if _is_worth_it(name, needs_gradients(module, x)) else dtype


def _is_worth_it(dtype: str, training: bool) -> bool:
    """Whether to compute in a type of lower precision: by the environment variable, or by what was measured."""
    switch = read_variable(SWITCH, ("on", "off", "auto"), "auto")
    return _is_faster(dtype, training) if switch == "auto" else switch == "on"


# A compiler calls it while it traces, and takes the answer for a constant. What `torch.compiler.assume_constant_result`
# sets, which would import the compiler.
_is_worth_it._dynamo_marked_constant = True  # type: ignore[attr-defined]


@cache
def _is_faster(dtype: str, training: bool) -> bool:
    faster = is_faster(recall_times(dtype, training), dtype)
    if not faster:
        _tell(dtype)
    return faster


def is_faster(times: dict[str, float], dtype: str) -> bool:
    """Whether a type takes less time than float32, of seconds by type."""
    return times[dtype] < times["float32"]


@cache
def _tell(dtype: str) -> None:
    logger.warning(
        "within autocast to %s, FocalNet computes in float32, which takes less time on this processor (measured); "
        "%s=on obeys autocast all the same",
        dtype,
        SWITCH,
    )


def recall_times(dtype: str, training: bool) -> dict[str, float]:
    """Seconds that a block takes in float32 and in a type of lower precision: as remembered, or measured now."""
    parts = (processor_name(), *instruction_sets(), torch.backends.cpu.get_cpu_capability(), torch.__version__)
    question = f"block of {_SIDE}x{_SIDE}x{_DIM} in {dtype}, training {training}: {' '.join(parts)}"
    with one_at_a_time(question):
        # The processor is none of a program's files, but torch is.
        found = find_out(question, [torch.__file__], lambda _: measure(dtype, training), title="measure " + dtype)
    return found[torch.__file__]


def measure(dtype: str, training: bool) -> dict[str, float]:
    """Seconds that a block takes in float32 and in a type of lower precision: the least of a few trials in turns.

    In a thread of its own, where nobody's modes are: tracing, fake tensors, inference mode, other devices.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_measure, getattr(torch, dtype), training).result()


def _measure(dtype: torch.dtype, training: bool) -> dict[str, float]:
    block = _Sample()
    make = _make_step if training else _make_forward
    runs = {"float32": make(block, torch.float32), str(dtype).removeprefix("torch."): make(block, dtype)}
    for run in runs.values():
        run()
    times = dict.fromkeys(runs, float("inf"))
    for _ in range(_TRIALS):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name] = min(times[name], time.perf_counter() - start)
        if max(times.values()) > _CLEARLY * min(times.values()):
            break
    return times


class _Sample(nn.Module):
    """What of a block the fast ways of computing it look at. Random numbers stay untouched: there are none."""

    def __init__(self) -> None:
        super().__init__()
        with torch.device("meta"):
            self.norm1, self.norm2 = nn.LayerNorm(_DIM), nn.LayerNorm(_DIM)
            self.modulation = FocalModulation(_DIM, focal_level=2, focal_window=9)
            self.mlp = Mlp(_DIM, 4 * _DIM, nn.GELU(), 0.0)
        self.use_post_layernorm = False
        self.packed_weights = None
        self.to_empty(device="cpu")
        for parameter in self.parameters():
            with torch.no_grad():
                parameter.copy_(_spread(parameter.shape) * 0.05)


def _spread(shape: torch.Size) -> Tensor:
    return torch.linspace(-1, 1, shape.numel(), dtype=torch.float32).view(shape)


def _make_forward(block: _Sample, dtype: torch.dtype) -> Callable[[], object]:
    x = _spread(torch.Size([1, _SIDE, _SIDE, _DIM])).to(dtype)

    @torch.no_grad()
    def run() -> object:
        with _autocast(dtype):
            return compute_block(block, x)

    return run


def _make_step(block: _Sample, dtype: torch.dtype) -> Callable[[], object]:
    x = _spread(torch.Size([1, _SIDE, _SIDE, _DIM])).to(dtype).requires_grad_()
    branches = [(block.modulation, block.norm1), (block.mlp, block.norm2)]

    def run() -> object:
        with _autocast(dtype):
            y = x
            for layer, norm in branches:
                y = y + run_branch(layer, norm, None, y)
        return torch.autograd.grad(y.float().sum(), [x, *block.parameters()])

    return run


def _autocast(dtype: torch.dtype) -> torch.autocast:
    low = dtype != torch.float32
    return torch.autocast("cpu", dtype if low else torch.bfloat16, enabled=low)
