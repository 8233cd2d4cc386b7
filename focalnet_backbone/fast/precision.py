"""Whether autocast's bfloat16 or float16 is worth it on this processor, and float32 in its place where it is not.

Processors without instructions for these types take many times as long as in float32, and some that have them take
longer all the same. So it is measured: once for a processor, a version of torch, a type, with and without gradients;
the times are kept in the package's folder of what is remembered (`system.facts`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from focalnet_backbone.fast import measuring
from focalnet_backbone.fast.dispatch import needs_gradients
from focalnet_backbone.fast.inference import compute_block
from focalnet_backbone.fast.training import run_branch
from focalnet_backbone.network.layers import Mlp
from focalnet_backbone.network.modulation import FocalModulation
from focalnet_backbone.system.switches import read_variable

logger = logging.getLogger(__name__)

SWITCH = "FOCALNET_CPU_AUTOCAST"
"""Environment variable: "on" to compute in autocast's type, "off" to compute in float32, "auto" (as if it were not
there) for the faster one."""

LOW = (torch.bfloat16, torch.float16)
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
    question = f"block of {_SIDE}x{_SIDE}x{_DIM} in {dtype}, training {training}"
    return measuring.recall_times(question, lambda: measure(dtype, training), title="measure " + dtype)


def measure(dtype: str, training: bool) -> dict[str, float]:
    """The same, measured now."""
    return measuring.least_times(lambda: _make_runs(dtype, training))


def _make_runs(dtype: str, training: bool) -> measuring.Runs:
    block, make = _Sample(), _make_step if training else _make_forward
    return {name: make(block, getattr(torch, name)) for name in ("float32", dtype)}


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
                parameter.copy_(measuring.spread(*parameter.shape) * 0.05)


def _make_forward(block: _Sample, dtype: torch.dtype) -> Callable[[], object]:
    x = measuring.spread(1, _SIDE, _SIDE, _DIM).to(dtype)

    @torch.no_grad()
    def run() -> object:
        with _autocast(dtype):
            return compute_block(block, x)

    return run


def _make_step(block: _Sample, dtype: torch.dtype) -> Callable[[], object]:
    x = measuring.spread(1, _SIDE, _SIDE, _DIM).to(dtype).requires_grad_()
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
