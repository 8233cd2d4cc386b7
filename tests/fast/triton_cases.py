"""What Triton's kernels compute is what the plain formulation does: cases for its interpreter and for a GPU.

    TRITON_INTERPRET=1 FOCALNET_TRITON=1 python -m tests.fast.triton_cases

prints the failures by case, as JSON. The interpreter is a matter of a whole process: it must be chosen before Triton is
imported.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from focalnet_backbone.benchmark.memory import saved_bytes
from focalnet_backbone.fast import kernels
from tests.fast.fast_paths import SETTINGS, block, only_fast_paths, plain_formulation

SHAPE = (2, 5, 7, 6)


def relative_error(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return ((found.double() - expected).norm() / expected.norm()).item()


def check_level(device: str, *, size: int, dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = SHAPE) -> None:
    """A level's convolution, GELU and gathered context, and the convolution's gradients, against float64."""
    generator = torch.Generator().manual_seed(size)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    n, height, width, channels = shape
    x, gathered, gradient, kernel = draw(*shape), draw(*shape), draw(*shape), draw(channels, 1, size, size)
    gates = draw(n, height * width, 4)
    exact = [tensor.double().requires_grad_() for tensor in (x, kernel)]
    expected = F.conv2d(exact[0].permute(0, 3, 1, 2), exact[1], padding=size // 2, groups=channels).permute(0, 2, 3, 1)
    to_x, to_kernel = torch.autograd.grad(expected, exact, gradient.double())
    gate = gates.double().view(n, height, width, 4)[..., 2:3]
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype]
    total = gathered.double() + F.gelu(expected) * gate
    found = kernels.add_level(x, kernel, gates, 2, gathered.clone())
    for one, other in zip(found, (expected, F.gelu(expected), total), strict=True):
        assert relative_error(one, other) < tolerance
    assert relative_error(kernels.depthwise_input_gradient(gradient, x, kernel), to_x) < tolerance
    assert relative_error(kernels.depthwise_weight_gradient(gradient, x, kernel), to_kernel) < tolerance


def without_triton() -> AbstractContextManager:
    return mock.patch.dict(os.environ, {kernels.TRITON_SWITCH: "0"})


def maps_and_gradients(model: torch.nn.Module, x: Tensor, autocast: torch.dtype | None = None) -> list[Tensor]:
    x = x.detach().requires_grad_()
    with torch.autocast(x.device.type, autocast or torch.bfloat16, enabled=autocast is not None):
        result = model(x)
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(5)).to(result)
    return [result, *torch.autograd.grad((result * weights).sum(), [x, *model.parameters()])]


def check_block(
    device: str, *, settings: str = "pre-norm", levels: int = 2, autocast: torch.dtype | None = None
) -> None:
    """A block's result and gradients, and its result without gradients."""
    model = block(SETTINGS[settings], levels=levels, window=3).to(device)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)).to(device)
    with plain_formulation():
        exact = maps_and_gradients(model.double(), x.double())
    with without_triton():
        usual = maps_and_gradients(model.float(), x, autocast)
    kept = mock.Mock(wraps=kernels.triton_kernels(x).add_level)
    with only_fast_paths(), mock.patch("focalnet_backbone.fast.triton_kernels.add_level", kept):
        found = maps_and_gradients(model, x, autocast)
        assert kept.call_count == levels, "Triton's kernels were not taken"
        with torch.no_grad(), torch.autocast(device, autocast or torch.bfloat16, enabled=autocast is not None):
            inferred = model(x)
    errors = [relative_error(*pair) for pair in zip([*found, inferred], [*exact, exact[0]], strict=True)]
    if autocast is None:
        assert max(errors) < 5e-5, errors
    else:
        usual_errors = [relative_error(*pair) for pair in zip(usual, exact, strict=True)]
        # The interpreter cuts bfloat16 off where a GPU rounds, and is wrong by twice as much.
        assert max(errors) < (3 if device == "cpu" else 1.5) * max(usual_errors), (errors, usual_errors)


def check_memory(device: str) -> None:
    """No more is kept for the backward pass than by the other kernels."""
    model, x = block({}, window=3).to(device), torch.randn(SHAPE).to(device)
    with without_triton():
        without = saved_bytes(model, lambda: model(x))
    assert saved_bytes(model, lambda: model(x)) == without


def check_empty(device: str) -> None:
    """A batch of nothing."""
    model = block({}, window=3).to(device)
    for x in (torch.zeros(0, *SHAPE[1:], device=device), torch.zeros(1, 1, 1, SHAPE[3], device=device)):
        assert model(x).shape == x.shape


CASES: dict[str, Callable[[str], None]] = {
    "level, 3x3": partial(check_level, size=3),
    "level, a kernel that reaches beyond the map from everywhere": partial(check_level, size=9, shape=(2, 3, 4, 6)),
    "level, more than a tile": partial(check_level, size=3, shape=(1, 11, 13, 70)),
    "level, a row": partial(check_level, size=5, shape=(3, 1, 9, 1)),
    "level, bfloat16": partial(check_level, size=5, dtype=torch.bfloat16),
    "level, float16": partial(check_level, size=5, dtype=torch.float16),
    **{f"block, {name}": partial(check_block, settings=name) for name in ("pre-norm", "norm in modulation")},
    "block, one level": partial(check_block, levels=1),
    "block, four levels": partial(check_block, levels=4),
    "block, bfloat16 autocast": partial(check_block, autocast=torch.bfloat16),
    "memory": check_memory,
    "empty": check_empty,
}


def main() -> None:
    failures = {}
    # The interpreter takes its time for each step of a loop, whatever the size of what is computed there.
    with (
        mock.patch("focalnet_backbone.fast.triton_kernels._POSITIONS", 128),
        mock.patch("focalnet_backbone.fast.triton_kernels._GRADIENT_POSITIONS", 128),
    ):
        for name, case in CASES.items():
            try:
                case("cpu")
            except Exception:
                failures[name] = traceback.format_exc()
            else:
                failures[name] = ""
    print(json.dumps(failures))


if __name__ == "__main__":
    main()
