"""On a GPU, as far as a machine without one can tell: tensors that have a GPU's device and type, and no values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from focalnet_backbone import FocalNet
from focalnet_backbone.fast import training
from focalnet_backbone.features.images import normalize
from tests.fast.fast_paths import ALL_SETTINGS

GPU = torch.device("cuda", 0)
KNOBS = {"embed_dim": 8, "depths": [1, 2], "focal_levels": [3, 1], "focal_windows": [9, 3], "out_indices": [0, 1, 2]}
AUTOCAST = pytest.mark.parametrize("autocast", [None, torch.bfloat16], ids=str)


@pytest.fixture(autouse=True)
def _on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """New tensors are fake, and on a GPU. Reading a value of theirs is an error, as it would make a CPU wait."""
    # This one reads values.
    monkeypatch.setattr(nn.init, "trunc_normal_", lambda tensor, **_: tensor)
    with FakeTensorMode(), torch.device(GPU):
        yield


@contextmanager
def fast_paths(on: bool) -> Iterator[None]:
    with mock.patch("focalnet_backbone.network.blocks.may_bypass_submodules", return_value=on):
        yield


def kinds(maps: dict[str, Tensor]) -> dict[str, Any]:
    return {name: (m.device, m.dtype, m.shape, m.stride()) for name, m in maps.items()}


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@AUTOCAST
@ALL_SETTINGS
def test_fast_paths_give_maps_of_the_plain_formulations_kind(settings, autocast, training):
    model = FocalNet(**KNOBS, drop_path_rate=0.2, **settings).train(training)
    found = []
    for on in (True, False):
        with (
            fast_paths(on),
            torch.set_grad_enabled(training),
            torch.autocast("cuda", autocast or torch.bfloat16, enabled=autocast is not None),
        ):
            found.append(kinds(model(torch.randn(2, 3, 45, 52))))
    assert found[0] == found[1]
    assert {device for device, *_ in found[0].values()} == {GPU}


class _Context(SimpleNamespace):
    """What autograd hands to a function. Its engine cannot run without a GPU's driver."""

    def save_for_backward(self, *tensors: Tensor) -> None:
        self.saved_tensors = tensors


def pull_back(function: type[torch.autograd.Function], *inputs: Any) -> Tensor:
    """Run a function forward, and backward at once: its gradients are of the kinds of its inputs."""
    wanted = [isinstance(x, Tensor) for x in inputs]
    context = _Context(needs_input_grad=tuple(wanted))
    with torch.no_grad():
        result = function.forward(context, *inputs)
        gradients = function.backward(context, torch.randn_like(result))
    for x, gradient, want in zip(inputs, gradients, wanted, strict=True):
        assert (gradient is not None) == want
        if want:
            assert (gradient.device, gradient.dtype, gradient.shape) == (x.device, x.dtype, x.shape)
    return result


@AUTOCAST
@ALL_SETTINGS
def test_backward_passes_give_gradients_of_the_parameters_kind(settings, autocast):
    model = FocalNet(**KNOBS, **settings).train()
    calls = []

    def apply(function: type[torch.autograd.Function]) -> Any:
        def run(*inputs: Any) -> Tensor:
            calls.append(function)
            return pull_back(function, *inputs)

        return mock.patch.object(function, "apply", run)

    with (
        fast_paths(True),
        apply(training._Modulate),
        apply(training._FeedForward),
        torch.autocast("cuda", autocast or torch.bfloat16, enabled=autocast is not None),
    ):
        model(torch.randn(2, 3, 45, 52))
    assert len(calls) == 2 * sum(KNOBS["depths"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_converted_models_and_images_stay_in_their_type(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # Fake parameters cannot be converted.
    try:
        model = FocalNet(**KNOBS).eval()
    finally:
        torch.set_default_dtype(before)
    with fast_paths(True), torch.no_grad():
        pixels = normalize(torch.zeros(2, 3, 32, 40, dtype=torch.uint8), dtype)
        assert {(m.device, m.dtype) for m in [pixels, *model(pixels).values()]} == {(GPU, dtype)}
