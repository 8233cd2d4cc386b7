"""Within an autocast that does not pay on the processor, results are those of float32, in the types of autocast."""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from focalnet_backbone import FocalNetConfig
from focalnet_backbone.fast import measuring, precision
from focalnet_backbone.models import FocalNetForMaskedImageModeling, FocalNetModel
from tests.fast.fast_paths import ALL_SETTINGS, backbone, block, plain_formulation, randomised
from tests.fast.test_kernels import relative_error

LOW = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
IMAGES = (2, 3, 45, 52)
SMALL = {"embed_dim": 4, "depths": [1, 1], "focal_levels": [1, 1], "focal_windows": [3, 3], "encoder_stride": 8}


@pytest.fixture(autouse=True)
def _nothing_measured_before() -> None:
    precision._is_faster.cache_clear()
    precision._tell.cache_clear()


@pytest.fixture
def slow(monkeypatch) -> None:
    """A processor that is faster in float32."""
    monkeypatch.setenv(precision.SWITCH, "auto")
    monkeypatch.setattr(precision, "recall_times", lambda dtype, _: {"float32": 1.0, dtype: 1.1})


def autocast(dtype: torch.dtype = torch.bfloat16) -> torch.autocast:
    return torch.autocast("cpu", dtype)


def maps_under_autocast(model: nn.Module, x: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    with autocast(dtype), plain_formulation():
        return model(x)


# Results


@ALL_SETTINGS
@LOW
@torch.no_grad()
def test_maps_are_those_of_float32_rounded_to_the_types_of_autocast(settings, dtype, slow, monkeypatch):
    model = backbone(settings, out_indices=[0, 1, 2]).eval()
    x = torch.randn(IMAGES)
    with autocast(dtype):
        found = model(x)
        from_low = model(x.to(dtype))
        assert torch.is_autocast_enabled("cpu")
    monkeypatch.setenv(precision.SWITCH, "on")
    promised = maps_under_autocast(model, x, dtype)
    exact = model(x)
    for name, features in found.items():
        assert features.dtype == from_low[name].dtype == promised[name].dtype
        assert torch.equal(features, exact[name].to(features.dtype))
        assert features.stride() == exact[name].stride()


@ALL_SETTINGS
@torch.no_grad()
def test_a_block_alone_gives_the_type_of_autocast(settings, slow, monkeypatch):
    model = block(settings).eval()
    x = torch.randn(2, 5, 7, 6)
    for given in (x, x.bfloat16()):
        with autocast():
            found = model(given)
        with monkeypatch.context() as patch, autocast(), plain_formulation():
            patch.setenv(precision.SWITCH, "on")
            promised = model(given)
        assert found.dtype == promised.dtype
        assert torch.equal(found, model(given.float()).to(found.dtype))


@pytest.mark.parametrize("knobs", [{}, {"use_layerscale": True}], ids=str)
@pytest.mark.parametrize(
    ("kind", "result"),
    [(FocalNetModel, "last_hidden_state"), (FocalNetForMaskedImageModeling, "reconstruction")],
)
@torch.no_grad()
def test_models_with_heads_give_the_types_of_autocast(kind, result, knobs, slow, monkeypatch):
    model = kind(FocalNetConfig(**SMALL, **knobs, output_hidden_states=True)).eval()
    x = torch.ones(1, 3, 16, 16)
    exact = model(x)
    with autocast():
        found = model(x)
        monkeypatch.setenv(precision.SWITCH, "on")
        promised = model(x)
    for one, other in zip(found.values(), promised.values(), strict=True):
        pairs = zip(one, other, strict=True) if isinstance(one, tuple) else [(one, other)]
        assert all(a is b is None or a.dtype == b.dtype for a, b in pairs)
    assert (found[result] - exact[result]).norm() < 2**-8 * exact[result].norm()


def gradients(model: nn.Module, x: Tensor, run: Callable | None = None) -> dict[str, Tensor]:
    x = x.detach().requires_grad_()
    model.zero_grad()
    maps = (run or model)(x).values()
    sum((m.float() * torch.linspace(-1, 1, m.numel()).view(m.shape)).sum() for m in maps).backward()
    return {"input": x.grad, **{name: p.grad for name, p in model.named_parameters()}}


def rounded(model: nn.Module) -> Callable:
    """The model in float32, its maps through bfloat16."""
    return lambda x: {name: m.bfloat16() for name, m in model(x.float()).items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        torch.testing.assert_close(found[name], value)


@pytest.mark.parametrize("use_checkpoint", [False, True])
def test_gradients_are_those_of_float32(use_checkpoint, slow):
    model = backbone({}, use_checkpoint=use_checkpoint).train()
    for x in (torch.randn(IMAGES), torch.randn(IMAGES).bfloat16()):
        with autocast():
            found = gradients(model, x)
        assert_same(found, gradients(model, x, rounded(model)))
        assert {name: g.dtype for name, g in found.items() if g.dtype != torch.float32} == (
            {"input": torch.bfloat16} if x.dtype == torch.bfloat16 else {}
        )


def test_every_way_to_run_a_model_gives_the_same(slow):
    model = backbone({}).train()
    x = torch.randn(IMAGES)
    expected = gradients(model, x, rounded(model))

    def functional(x: Tensor) -> dict[str, Tensor]:
        return torch.func.functional_call(model, dict(model.named_parameters()), (x,))

    with tempfile.TemporaryDirectory() as folder, autocast():
        assert_same(gradients(copy.deepcopy(model), x), expected)
        assert_same(gradients(model, x, functional), expected)
        store = torch.distributed.FileStore(str(Path(folder) / "store"), 1)
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        try:
            assert_same(gradients(model, x, nn.parallel.DistributedDataParallel(model)), expected)
        finally:
            torch.distributed.destroy_process_group()


@pytest.mark.parametrize("grad", [False, True], ids=["no grad", "grad"])
def test_compiled_models_compute_what_was_decided_when_they_were_traced(grad, slow):
    model = backbone({}, depths=[1, 1], focal_levels=[1, 1], focal_windows=[3, 3]).eval()
    x = torch.randn(IMAGES)
    torch._dynamo.reset()
    with torch.set_grad_enabled(grad):
        with autocast():
            found = torch.compile(model, fullgraph=True, backend="aot_eager")(x)
        for name, features in model(x).items():
            assert found[name].dtype == torch.bfloat16
            torch.testing.assert_close(found[name], features.bfloat16(), rtol=2**-6, atol=1e-3)


@torch.no_grad()
def test_an_exported_program_computes_in_float32_inside(slow):
    model = backbone({}).eval()
    x = torch.randn(1, 3, 64, 72)
    with autocast():
        program = torch.export.export(model, (x,))
    found = program.module()(x)["stage2"]
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, model(x)["stage2"].bfloat16(), rtol=2**-6, atol=1e-3)


# What is left alone


@torch.no_grad()
def test_converted_models_and_doubles_are_left_alone(slow):
    model = backbone({}).eval()
    x = torch.randn(IMAGES)
    assert precision.autocast_to_leave(model, x) is None, "no autocast"
    with autocast():
        assert precision.autocast_to_leave(model, x) == torch.bfloat16
        assert precision.autocast_to_leave(model, x.double()) is None
        assert precision.autocast_to_leave(model, x.to("meta")) is None
        for convert in (nn.Module.bfloat16, nn.Module.half, nn.Module.double):
            assert precision.autocast_to_leave(convert(copy.deepcopy(model)), x) is None
        model.layers[1].bfloat16()
        assert precision.autocast_to_leave(model, x) is None


# The decision


def test_what_takes_less_time_is_taken():
    assert precision.is_faster({"float32": 2.0, "bfloat16": 1.9}, "bfloat16")
    assert not precision.is_faster({"float32": 2.0, "bfloat16": 2.0}, "bfloat16")
    assert not precision.is_faster({"float32": 2.0, "float16": 16.0}, "float16")


def test_times_are_measured_once_for_a_type_with_and_without_gradients(monkeypatch, tmp_path, caplog):
    asked = []

    def measure(dtype: str, training: bool) -> dict[str, float]:
        asked.append((dtype, training))
        return {"float32": 1.0, dtype: 0.5 if training else 8.0}

    monkeypatch.setenv(precision.SWITCH, "auto")
    monkeypatch.setenv("FOCALNET_CACHE", str(tmp_path))
    monkeypatch.setattr(precision, "measure", measure)
    model, x = block({}).eval(), torch.randn(1, 5, 7, 6)
    with caplog.at_level(logging.WARNING), autocast():
        for _ in range(2):
            for grad, left in ((False, torch.bfloat16), (True, None)):
                with torch.set_grad_enabled(grad):
                    assert precision.autocast_to_leave(model, x) == left
            # As in another process.
            precision._is_faster.cache_clear()
    assert asked == [("bfloat16", False), ("bfloat16", True)]
    assert [record.message for record in caplog.records] == [
        "within autocast to bfloat16, FocalNet computes in float32, which takes less time on this processor "
        "(measured); FOCALNET_CPU_AUTOCAST=on obeys autocast all the same"
    ]
    monkeypatch.setattr(measuring, "processor_name", lambda: "another")
    with autocast(), torch.no_grad():
        precision.autocast_to_leave(model, x)
    assert len(asked) == 3


@pytest.mark.parametrize(("switch", "left"), [("on", None), ("off", torch.bfloat16)])
def test_the_environment_variable_decides_without_measuring(switch, left, monkeypatch):
    monkeypatch.setenv(precision.SWITCH, switch)
    monkeypatch.setattr(precision, "recall_times", None)
    with autocast():
        assert precision.autocast_to_leave(block({}), torch.randn(1, 5, 7, 6)) == left


def test_a_wrong_value_of_the_environment_variable_is_told(monkeypatch):
    monkeypatch.setenv(precision.SWITCH, "never")
    with autocast(), pytest.raises(ValueError, match="FOCALNET_CPU_AUTOCAST must be on, off or auto, got 'never'"):
        block({})(torch.randn(1, 5, 7, 6))


def test_measuring_runs_both_types_and_leaves_no_trace(monkeypatch):
    monkeypatch.setattr(precision, "_DIM", 8)
    state = torch.get_rng_state()
    with FakeTensorMode(), torch.inference_mode(), torch.device("meta"), autocast():
        found = [precision.measure(name, training) for name in ("bfloat16", "float16") for training in (False, True)]
    assert [list(times) for times in found] == [["float32", low] for low in ("bfloat16",) * 2 + ("float16",) * 2]
    assert all(time > 0 for times in found for time in times.values())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_measured_block_is_a_block():
    sample = randomised(precision._Sample())
    real = block({}, dim=precision._DIM, levels=2, window=9).eval()
    real.load_state_dict(sample.state_dict())
    found = precision._make_forward(sample, torch.float32)()
    # Compared as a whole, as its values lie between 1e-3 and 1e4.
    assert relative_error(found, real(measuring.spread(1, 16, 16, precision._DIM)).detach()) < 1e-6
