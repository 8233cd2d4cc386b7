"""Blocks without gradients: the same numbers as the plain formulation's, in fewer and smaller tensors."""

from __future__ import annotations

from collections import Counter
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.profiler import profile

from focalnet_backbone import FocalNet
from focalnet_backbone.fast import inference, native
from focalnet_backbone.fast.inference import tiles
from tests.fast.fast_paths import ALL_SETTINGS, backbone, block, only_fast_paths, plain_formulation, small_tiles


@given(n=st.integers(1, 9), positions=st.integers(1, 3000), hidden=st.integers(1, 5000))
def test_tiles_cover_every_position_once_and_are_contiguous(n, positions, hidden):
    x = torch.zeros(n, positions, 1)
    for tile in tiles(x, hidden):
        assert x[tile].is_contiguous()
        assert x[tile].numel() > 0
        x[tile] += 1
    assert (x == 1).all()


@ALL_SETTINGS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@torch.no_grad()
def test_equals_the_plain_formulation(settings, dtype, tolerance):
    model = block(settings).to(dtype).eval()
    x = torch.randn(3, 7, 9, 6, dtype=dtype)
    before = x.clone()
    with plain_formulation():
        expected = model(x)
    with only_fast_paths():
        whole = model(x)
        with small_tiles():
            tiled = model(x)
    torch.testing.assert_close(whole, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(tiled, expected, rtol=tolerance, atol=tolerance)
    assert torch.equal(x, before)


@pytest.mark.parametrize("dims", [(0, 3, 1, 2), (0, 2, 1, 3), (3, 0, 1, 2)])
@torch.no_grad()
def test_any_strides_will_do(dims):
    """Several small samples share a tile, which is no plain slice of the input then."""
    model = block({}).eval()
    x = torch.randn(3, 5, 7, 6).permute(dims).contiguous().permute([dims.index(i) for i in range(4)])
    assert not x.is_contiguous()
    expected = model(x.contiguous())
    torch._dynamo.reset()
    with only_fast_paths():
        torch.testing.assert_close(model(x), expected)
        torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), expected)
        assert model(x).is_contiguous()


@ALL_SETTINGS
@torch.no_grad()
def test_autocast_is_as_close_to_float32_as_the_plain_formulation_is(settings):
    model = backbone(settings).eval()
    x = torch.randn(2, 3, 64, 72)
    with torch.autocast("cpu", torch.bfloat16):
        with only_fast_paths():
            found = model(x)["stage2"]
        with plain_formulation():
            plain = model(x)["stage2"]
    exact = model(x)["stage2"]
    assert found.dtype == plain.dtype
    assert (found - exact).norm() < 1.5 * (plain - exact).norm()
    assert (found - exact).norm() / exact.norm() < 0.02


@torch.no_grad()
def test_a_model_converted_to_bfloat16_runs():
    model = backbone({}).eval()
    x = torch.randn(1, 3, 64, 72)
    exact = model(x)["stage2"]
    with only_fast_paths():
        found = model.bfloat16()(x.bfloat16())["stage2"]
    assert found.dtype == torch.bfloat16
    assert (found - exact).norm() / exact.norm() < 0.03


def test_runs_in_inference_mode_and_for_frozen_stages():
    model = backbone({}, frozen_stages=2).train()
    x = torch.randn(1, 3, 32, 40)
    with only_fast_paths():
        frozen = model(x)["stage2"]
        with torch.inference_mode():
            assert torch.equal(model(x)["stage2"], frozen)
    assert not frozen.requires_grad


@torch.no_grad()
def test_drop_path_acts_without_gradients_too():
    model = backbone({}, drop_path_rate=1.0).train()
    x = torch.randn(1, 3, 32, 40)
    assert not torch.equal(model(x)["stage2"], model.eval()(x)["stage2"])


# Where timings waver, these counts do not


@pytest.fixture(scope="module")
def whole_map_operations() -> Counter:
    """How often each operation has an input as large as the map, in one forward pass of a stage with one block.

    The map is 64x64x96, which is larger than the image. Profilers do not tell the inputs of compiled convolutions.
    """
    model = FocalNet(embed_dim=96, depths=[1], focal_levels=[3], focal_windows=[9]).eval()
    x = torch.randn(1, 3, 256, 256)
    with torch.no_grad(), only_fast_paths(), small_tiles():
        model(x)
        with profile(record_shapes=True) as recorded:
            model(x)
    whole = 64 * 64 * 96
    return Counter(
        event.name
        for event in recorded.events()
        if event.name == native.OPERATOR
        or any(torch.Size(shape).numel() == whole for shape in event.input_shapes if isinstance(shape, list))
    )


def test_no_whole_map_is_copied(whole_map_operations):
    copies = {"aten::copy_", "aten::clone", "aten::contiguous", "aten::cat", "aten::_to_copy"}
    assert not copies & set(whole_map_operations)


def test_few_operations_pass_over_a_whole_map(whole_map_operations):
    passes = {
        "aten::native_layer_norm": 2,  # the stem's and the output's
        "aten::mean": 1,  # the global context's
    }
    names = ["add", "add_", "mul", "mul_", "addcmul_", "gelu", "div", "div_", "addmm"]
    elementwise = [f"aten::{name}" for name in names]
    convolutions = {"aten::convolution", "mkldnn::_convolution_pointwise", native.OPERATOR}
    assert {name: whole_map_operations[name] for name in [*passes, *elementwise]} == {
        **passes,
        **dict.fromkeys(elementwise, 0),
    }
    assert sum(whole_map_operations[name] for name in convolutions) == 3
    # With a convolution that does not apply its activation itself.
    alone = whole_map_operations["aten::convolution"] + whole_map_operations[native.OPERATOR]
    assert whole_map_operations["aten::gelu_"] <= alone


# A compiler sees a block as one operator


@pytest.mark.parametrize("size", [(64, 72), (33, 70)])
@torch.no_grad()
def test_compiled_code_takes_the_same_way(size):
    model = backbone({}).eval()
    x = torch.randn(2, 3, *size)
    expected = model(x)["stage2"]
    torch._dynamo.reset()
    with only_fast_paths():
        found = torch.compile(model, fullgraph=True)(x)["stage2"]
    torch.testing.assert_close(found, expected)


@ALL_SETTINGS
@torch.no_grad()
def test_the_operator_tells_compilers_the_truth(settings):
    model = block(settings).eval()
    x = torch.randn(2, 5, 7, 6)
    seen = []
    with (
        mock.patch.object(torch.compiler, "is_compiling", return_value=True),
        mock.patch.object(inference, "_compute_as_operator", lambda *arguments: seen.append(arguments) or x),
    ):
        inference.run_block(model, x)
    x, *others = seen[0]
    for layout in (x, x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)):
        torch.library.opcheck(torch.ops.focalnet_backbone.block.default, (layout, *others))


@torch.no_grad()
def test_exported_programs_need_no_operator_of_this_package():
    model = backbone({}).eval()
    program = torch.export.export(model, (torch.randn(1, 3, 64, 72),))
    assert not [node for node in program.graph.nodes if "focalnet_backbone" in str(node.target)]


@torch.no_grad()
def test_compiled_code_leaves_autocast_to_the_plain_formulation():
    model = backbone({}).eval()
    x = torch.randn(1, 3, 64, 72)
    exact = model(x)["stage2"]
    torch._dynamo.reset()
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.compile(model, fullgraph=True, backend="aot_eager")(x)["stage2"]
    assert (found - exact).norm() / exact.norm() < 0.02
