"""Triton's kernels on a GPU."""

from __future__ import annotations

import pytest
import torch

from focalnet_backbone import FocalNetConfig
from focalnet_backbone.benchmark.cases import Case, measure_case
from focalnet_backbone.fast import kernels
from tests.cuda.numbers import EXACT, SIZES, images, largest_error, maps_and_gradients, network
from tests.fast.fast_paths import only_fast_paths
from tests.fast.triton_cases import CASES, check_block, without_triton

pytestmark = pytest.mark.cuda
pytest.importorskip("triton")


@pytest.fixture(autouse=True)
def _asked_for(monkeypatch):
    monkeypatch.setenv(kernels.TRITON_SWITCH, "1")


@pytest.mark.parametrize("case", CASES)
def test_a_gpu_computes_what_the_plain_formulation_does(case):
    CASES[case]("cuda")


def test_float16_autocast_is_as_close_as_without_them():
    check_block("cuda", autocast=torch.float16)


def test_a_network_of_usual_width_computes_the_same(gpu):
    model = network(embed_dim=96, depths=[1, 1, 1, 1], focal_levels=[3] * 4, focal_windows=[9] * 4).to(gpu)
    x = images(2, 3, 160, 128).to(gpu)
    with without_triton():
        expected = maps_and_gradients(model, x)
    with only_fast_paths():
        assert largest_error(maps_and_gradients(model, x), expected) < EXACT


def test_their_times_are_measured_beside_those_without(gpu):
    case = Case("small", FocalNetConfig(**SIZES), (48, 64), 2, gpu, rounds=1, seconds=1)
    result = measure_case(case, ["triton", "triton-training"])
    assert list(result["triton"]) == list(result["triton-training"]) == ["ours", "ours, Triton"]


def test_a_step_is_captured_in_a_graph(gpu):
    model, x = network().train().to(gpu), images().to(gpu)
    expected = maps_and_gradients(model, x)
    graphed = torch.cuda.make_graphed_callables(model, (torch.zeros_like(x).requires_grad_(),))
    assert largest_error(maps_and_gradients(graphed, x), expected) < EXACT
