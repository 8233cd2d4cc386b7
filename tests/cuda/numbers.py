"""Networks, and what they compute: maps and gradients by name, to be compared between devices."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from focalnet_backbone import FocalNet
from tests.fast.fast_paths import plain_formulation, randomised

EXACT = 5e-5
"""The largest relative error that float32's rounding explains; TF32's is 1e-3."""

SIZES = {"embed_dim": 16, "depths": [1, 2], "focal_levels": [3, 3], "focal_windows": [9, 3], "out_indices": [1, 2]}


def network(**knobs: object) -> FocalNet:
    return randomised(FocalNet(**{**SIZES, "drop_path_rate": 0.0, **knobs}), scale=0.2)


def images(*shape: int) -> Tensor:
    return torch.randn(*(shape or (2, 3, 45, 52)), generator=torch.Generator().manual_seed(0))


def maps_and_gradients(model: nn.Module, x: Tensor, run: Callable | None = None) -> dict[str, Tensor]:
    """What a model gives for images, and the gradients of its weights and of the images, on the CPU in float64."""
    model.zero_grad()
    x = x.detach().requires_grad_()
    maps = (model if run is None else run)(x)
    generator = torch.Generator().manual_seed(3)
    losses = [(m.float() * torch.randn(m.shape, generator=generator).to(m.device)).sum() for m in maps.values()]
    sum(losses).backward()
    found = {**maps, "images": x.grad, **{n: p.grad for n, p in model.named_parameters() if p.grad is not None}}
    return {name: value.detach().cpu().double() for name, value in found.items()}


def exact(model: FocalNet, x: Tensor) -> dict[str, Tensor]:
    """The same by the plain formulation, on the CPU in float64."""
    with plain_formulation():
        return maps_and_gradients(copy.deepcopy(model).cpu().double(), x.cpu().double())


def largest_error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest relative error of any map or gradient."""
    assert list(found) == list(expected)
    return max(((found[n] - expected[n]).norm() / expected[n].norm()).item() for n in expected)
