"""Parameters and multiply-accumulates of a model, part by part, counted by fvcore."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    # fvcore compiles a few functions by torch.jit when it is imported, which torch calls deprecated.
    warnings.simplefilter("ignore", FutureWarning)
    from fvcore.nn import FlopCountAnalysis


@dataclass(frozen=True)
class Part:
    """A row of the table: a name, its parameters, and its multiply-accumulates for the whole input batch."""

    name: str
    parameters: int
    macs: int


@dataclass(frozen=True)
class Analysis:
    """What a model costs.

    Attributes:
        parts: stem, stages (each with its downsampling), and what else the model has, in its order.
        input_shape: the input that the multiply-accumulates are for, `(N, C, H, W)`.
    """

    parts: tuple[Part, ...]
    input_shape: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """Parameters of the whole model."""
        return sum(part.parameters for part in self.parts)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole model for the input."""
        return sum(part.macs for part in self.parts)

    def __str__(self) -> str:
        rows = [*self.parts, Part("total", self.parameters, self.macs)]
        shape = "x".join(map(str, self.input_shape))
        lines = [f"{'part':<14}{'parameters':>14}{'MACs (M)':>14}    input {shape}"]
        lines += [f"{row.name:<14}{row.parameters:>14,}{row.macs / 1e6:>14,.1f}" for row in rows]
        return "\n".join(lines)


def count(model: nn.Module, *inputs: Tensor) -> tuple[int, int]:
    """Parameters and multiply-accumulates of any model for some inputs.

    fvcore counts one for each multiply-accumulate of convolutions, matrix products and linear layers (the papers'
    "FLOPs"), and the elementwise work of norms; not activations, products by gates, or additions.
    """
    flops = _count_operations(model, *inputs)
    return sum(p.numel() for p in model.parameters()), int(flops.total())


def analyze(model: nn.Module, size: int | tuple[int, int] = 224, *, batch_size: int = 1) -> Analysis:
    """Count a FocalNet, or a model built on one, part by part.

    Args:
        model: the model, with a `config`; on any device, the meta device included. A copy on the CPU is counted.
        size: height and width of the input in pixels, or one number for both.
        batch_size: images in the input.

    Raises:
        ValueError: the size or batch size is below 1.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width, batch_size) < 1:
        raise ValueError(f"size and batch_size must be at least 1, got {size} and {batch_size}")
    shape = (batch_size, model.config.num_channels, height, width)
    model = copy.copy(model)
    # Tracing takes no output objects.
    model.config = model.config.replace(return_dict=False)
    flops = _count_operations(model, torch.zeros(shape, dtype=next(model.parameters()).dtype))
    by_module = flops.by_module()
    # A mask token belongs to none of the modules.
    parts = [Part(name, p.numel(), 0) for name, p in model.named_parameters(recurse=False)]
    for name, module in model.named_children():
        if name == "layers":
            parts += [
                _part(f"stage{i}", stage, by_module[f"layers.{i - 1}"]) for i, stage in enumerate(module, start=1)
            ]
        elif any(True for _ in module.parameters()):
            parts.append(_part("stem" if name == "patch_embed" else name, module, by_module[name]))
    return Analysis(tuple(parts), shape)


def _part(name: str, module: nn.Module, macs: float) -> Part:
    return Part(name, sum(p.numel() for p in module.parameters()), int(macs))


def _count_operations(model: nn.Module, *inputs: Tensor) -> FlopCountAnalysis:
    model = copy.deepcopy(model)
    model.eval()  # What it returns is not the model, for some of the hosts.
    # Tracing needs real tensors. What they hold does not matter.
    on_meta = any(parameter.is_meta for parameter in model.parameters())
    model = model.to_empty(device="cpu") if on_meta else model.cpu()
    inputs = tuple(x.cpu() for x in inputs)
    flops = FlopCountAnalysis(model, inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with warnings.catch_warnings(), torch.no_grad():
        # fvcore traces the model; what the tracer says about sizes fixed in the trace is what is wanted here.
        warnings.simplefilter("ignore")
        flops.total()
    return flops
