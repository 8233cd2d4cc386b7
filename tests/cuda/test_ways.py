"""The ways in which torch may run a network on a GPU, and what this package does there beside."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from focalnet_backbone import FeatureExtractor, FocalNetConfig
from focalnet_backbone.benchmark.cases import Case, measure_case
from focalnet_backbone.benchmark.memory import peak_bytes
from focalnet_backbone.benchmark.timing import calls_per_timing, time_once
from focalnet_backbone.features.images import stack_images
from tests.cuda.conftest import ON_GPU
from tests.cuda.numbers import EXACT, SIZES, images, largest_error, maps_and_gradients, network
from tests.fast.fast_paths import only_fast_paths

GPU_ONLY = pytest.mark.parametrize("device", [ON_GPU])


@contextmanager
def without_waiting() -> Iterator[None]:
    """Whatever makes the program wait for the GPU is an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-4) -> None:
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=tolerance, atol=tolerance)


@pytest.mark.cuda
@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
def test_nothing_in_a_step_waits_for_the_gpu(gpu, autocast):
    model, x = network(drop_path_rate=0.5, use_layerscale=True).train().to(gpu), images().to(gpu)
    for guard in (torch.enable_grad(), without_waiting()):  # The first step loads what it needs.
        with guard:
            with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
                loss = sum(m.float().square().mean() for m in model(x).values())
            loss.backward()
            with torch.no_grad():
                model(x)


@pytest.mark.cuda
@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
@torch.no_grad()
def test_inference_is_captured_in_a_graph(gpu, autocast):
    model, x, other = network().eval().to(gpu), images().to(gpu), 2 * images().to(gpu)

    def run(x: Tensor) -> dict[str, Tensor]:
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast, cache_enabled=False):
            return model(x)

    expected, place, stream = run(other), x.clone(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run(place)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        maps = run(place)
    place.copy_(other)
    graph.replay()
    assert_same(maps, expected, 1e-2 if autocast else 1e-4)


@pytest.mark.cuda
def test_training_is_captured_in_a_graph(gpu):
    model, x = network().train().to(gpu), images().to(gpu)
    expected = maps_and_gradients(copy.deepcopy(model), x)
    graphed = torch.cuda.make_graphed_callables(model, (torch.zeros_like(x).requires_grad_(),))
    assert largest_error(maps_and_gradients(graphed, x), expected) < EXACT


@GPU_ONLY
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_compiled_networks_compute_the_same(device, training):
    pytest.importorskip("triton")
    model, x = network(depths=[1, 1]).train(training).to(device), images(2, 3, 64, 64).to(device)
    compiled = torch.compile(model, fullgraph=True)
    if training:
        expected = maps_and_gradients(model, x)
        assert largest_error(maps_and_gradients(model, x, compiled), expected) < 1e-4
    else:
        with torch.no_grad():
            assert_same(compiled(x), model(x), 1e-4)


def test_data_parallel_of_one_computes_the_same(device):
    model, x = network().to(device), images().to(device)
    parallel = nn.DataParallel(model, [0] if device.type == "cuda" else None)
    assert largest_error(maps_and_gradients(model, x, parallel), maps_and_gradients(model, x)) < EXACT


@pytest.mark.cuda
def test_a_replica_computes_the_same(gpu):
    """What each GPU has under DataParallel: a network whose weights are no parameters."""
    model, x = network().to(gpu), images().to(gpu)
    (replica,) = nn.parallel.replicate(model, [0])
    assert largest_error(maps_and_gradients(model, x, replica), maps_and_gradients(model, x)) < EXACT


def test_distributed_data_parallel_of_one_computes_the_same(device):
    model, x = network().to(device), images().to(device)
    expected = maps_and_gradients(model, x)
    with tempfile.TemporaryDirectory() as folder:
        store = dist.FileStore(str(Path(folder) / "store"), 1)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", store=store, rank=0, world_size=1)
        try:
            parallel = nn.parallel.DistributedDataParallel(model)
            with only_fast_paths():
                found = maps_and_gradients(model, x, parallel)
        finally:
            dist.destroy_process_group()
    assert largest_error(found, expected) < EXACT


def test_training_in_half_precision_lowers_the_loss(device):
    model, x = network(embed_dim=8).train().to(device), images(4, 3, 32, 32).to(device)
    for parameter in model.parameters():
        parameter.data *= 0.5
    on_gpu = device.type == "cuda"
    dtype = torch.float16 if on_gpu else torch.bfloat16
    scaler = torch.amp.GradScaler(device.type, init_scale=1024.0, enabled=on_gpu)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype):
            loss = (model(x)["stage2"].float() - 1).square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


# Extraction


def test_extracted_pyramids_are_those_of_the_cpu(device):
    photos = [(image * 60 + 128).clamp(0, 255).byte() for image in images(5, 3, 40, 48)]
    model = network().eval()
    expected = FeatureExtractor(copy.deepcopy(model), device="cpu")(photos, batch_size=2)
    extractor = FeatureExtractor(model, device=device)
    for found, wanted in zip(extractor(photos, batch_size=2), expected, strict=True):
        assert {m.device.type for m in found.values()} == {device.type}
        assert_same({name: m.cpu() for name, m in found.items()}, dict(wanted), 1e-4)
    assert stack_images(photos, device).is_pinned() == (device.type == "cuda")


@pytest.mark.cuda
def test_extraction_does_not_wait_for_the_gpu(gpu):
    extractor = FeatureExtractor(network(), device=gpu)
    photos = [image.byte() for image in images(2, 3, 40, 48)]
    extractor(photos)
    with without_waiting():
        extractor(photos)


# Measuring


def test_the_peak_is_that_of_the_call(device):
    assert peak_bytes(lambda: torch.ones(25_000_000, device=device), device) == pytest.approx(100e6, rel=0.05)


@pytest.mark.cuda
def test_times_are_those_of_the_gpu_and_not_of_its_launches(gpu):
    x = torch.randn(4096, 4096, device=gpu)
    one, four = (time_once(lambda n=n: [x @ x for _ in range(n)], gpu, calls=4) for n in (5, 20))
    assert four == pytest.approx(4 * one, rel=0.5)
    assert calls_per_timing(lambda: x + 1, gpu) == 100


@GPU_ONLY
def test_a_case_is_measured(device):
    case = Case("small", FocalNetConfig(**{**SIZES, "embed_dim": 8}), (48, 64), 2, device, rounds=2, seconds=2)
    result = measure_case(case, ["forward", "graph", "training", "memory", "autocast"])
    assert result["difference"] < 1e-4
    assert all(entry["seconds"] > 0 for entry in [*result["forward"].values(), *result["training"].values()])
    assert list(result["graph"]) == ["ours", "ours, graph"]
    assert result["memory"]["ours"]["peak"] > 0
