"""Maps and gradients on a GPU are those of the CPU, in every precision and memory layout."""

from __future__ import annotations

import pytest
import torch

from tests.cuda.conftest import ON_GPU
from tests.cuda.numbers import EXACT, exact, images, largest_error, maps_and_gradients, network
from tests.fast.fast_paths import ALL_SETTINGS, only_fast_paths, plain_formulation

HALVES = pytest.mark.parametrize(
    ("device", "dtype"),
    [
        ("cpu", torch.bfloat16),
        *(pytest.param("cuda", d, marks=pytest.mark.cuda) for d in (torch.bfloat16, torch.float16)),
    ],
)


@ALL_SETTINGS
def test_float32_is_exact_to_rounding(settings, device):
    model, x = network(**settings), images()
    expected = exact(model, x)
    with only_fast_paths():
        found = maps_and_gradients(model.to(device), x.to(device))
    assert largest_error(found, expected) < EXACT


@ALL_SETTINGS
def test_float32_without_gradients_is_exact_to_rounding(settings, device):
    model, x = network(**settings).eval(), images()
    expected = exact(model, x)
    with only_fast_paths(), torch.no_grad():
        maps = model.to(device)(x.to(device))
    assert largest_error({n: m.cpu().double() for n, m in maps.items()}, {n: expected[n] for n in maps}) < EXACT


@HALVES
@ALL_SETTINGS
def test_autocast_is_as_close_as_the_plain_formulation(settings, device, dtype):
    model, x = network(**settings), images()
    expected = exact(model, x)
    model, x = model.to(device), x.to(device)

    def run(x: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.autocast(device, dtype):
            return model(x)

    with only_fast_paths():
        found = maps_and_gradients(model, x, run)
    with plain_formulation():
        plain = maps_and_gradients(model, x, run)
    assert largest_error(found, expected) < max(1.5 * largest_error(plain, expected), 0.01)
    assert largest_error(found, expected) < 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.cuda)], ids=str)
@torch.no_grad()
def test_a_converted_model_is_close_too(device, dtype):
    model, x = network().eval(), images()
    expected = model(x)
    with only_fast_paths():
        found = model.to(device, dtype)(x.to(device, dtype))
    for name, m in found.items():
        assert m.dtype == dtype
        assert (m.cpu().float() - expected[name]).norm() < 0.05 * expected[name].norm()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_the_images_layout_changes_nothing_and_the_maps_are_channels_last(device, layout):
    model, x = network(), images(2, 3, 64, 64)
    expected = exact(model, x)
    found = model.to(device)(x.to(device, memory_format=layout))
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in found.values())
    assert largest_error(maps_and_gradients(model, x.to(device)), expected) < EXACT


def test_checkpointing_gives_the_same_gradients(device):
    model, x = network(use_checkpoint=True).train(), images()
    assert largest_error(maps_and_gradients(model.to(device), x.to(device)), exact(model, x)) < EXACT


@pytest.mark.parametrize("device", [ON_GPU])
@pytest.mark.parametrize("window", [3, 15])
def test_a_network_of_usual_width_is_exact_to_rounding(device, window):
    model = network(embed_dim=96, depths=[1, 1, 1, 1], focal_levels=[3] * 4, focal_windows=[window] * 4)
    x = images(1, 3, 96, 128)
    assert largest_error(maps_and_gradients(model.to(device), x.to(device)), exact(model, x)) < EXACT
