"""Training a block: gradients are those of plain autograd, for half of the memory, in every way torch may run it."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from focalnet_backbone.benchmark.memory import saved_bytes
from focalnet_backbone.fast.training import run_branch
from tests.fast.fast_paths import ALL_SETTINGS, backbone, block, only_fast_paths, plain_formulation, small_tiles

IMAGES = (2, 3, 45, 52)


def gradients(model: nn.Module, x: Tensor, run: Callable | None = None) -> dict[str, Tensor]:
    """The gradients of a loss that weighs every number of every map differently, by parameter, and the input's."""
    model.zero_grad()
    x = x.detach().requires_grad_()
    generator = torch.Generator().manual_seed(3)
    maps = (run or model)(x)
    maps = maps.values() if isinstance(maps, dict) else [maps]
    sum((m * torch.randn(m.shape, generator=generator)).sum() for m in maps).backward()
    return {"input": x.grad, **{name: p.grad for name, p in model.named_parameters() if p.grad is not None}}


def errors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    assert list(found) == list(expected)
    return {name: ((found[name] - expected[name]).norm() / expected[name].norm()).item() for name in expected}


# Gradients


@ALL_SETTINGS
@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_branches_pass_gradcheck(settings, check):
    model = block(settings, dim=3, levels=2, window=3).double()
    x = torch.randn(2, 4, 3, 3, dtype=torch.double, requires_grad=True)
    pre = not model.use_post_layernorm
    branches = [(model.modulation, model.norm1, model.gamma_1), (model.mlp, model.norm2, model.gamma_2)]
    for layer, norm, gamma in branches:
        norm, gamma = (norm, gamma) if pre else (None, None)
        parameters = [*layer.parameters(), *(norm.parameters() if pre else []), *([] if gamma is None else [gamma])]

        def call(x, *_, layer=layer, norm=norm, gamma=gamma):
            return run_branch(layer, norm, gamma, x)

        with small_tiles():
            assert check(call, (x, *parameters), fast_mode=True)


@ALL_SETTINGS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-5)])
def test_gradients_are_those_of_plain_autograd(settings, dtype, tolerance):
    model = backbone(settings).to(dtype)
    x = torch.randn(IMAGES, dtype=dtype)
    with plain_formulation():
        expected = gradients(model.double(), x.double())
    model = model.to(dtype)
    with only_fast_paths():
        found = gradients(model, x)
        with small_tiles():
            tiled = gradients(model, x)
    assert max(errors(found, expected).values()) < tolerance
    assert max(errors(tiled, expected).values()) < tolerance


@ALL_SETTINGS
def test_bfloat16_gradients_are_as_good_as_those_of_plain_autograd(settings):
    model = backbone(settings)
    x = torch.randn(IMAGES)
    with plain_formulation():
        exact = gradients(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        with plain_formulation():
            plain = gradients(model, x)
        with only_fast_paths(), small_tiles():
            found = gradients(model, x)
    plain_errors, found_errors = errors(plain, exact).values(), errors(found, exact).values()
    assert sum(found_errors) < 1.5 * sum(plain_errors)
    assert max(found_errors) < 1.5 * max(plain_errors)


@ALL_SETTINGS
def test_calling_backward_within_autocast_changes_nothing(settings):
    model = backbone(settings)
    block = model.layers[1].blocks[1]
    maps = block(torch.randn(2, 5, 7, 16))
    found = []
    for enabled in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(torch.autograd.grad(maps, [*block.modulation.parameters()], maps, retain_graph=True))
    assert all(torch.equal(inside, outside) for inside, outside in zip(*found, strict=True))


def test_drop_path_draws_the_same_numbers_as_the_plain_formulation():
    model = backbone({}, drop_path_rate=0.5).train()
    x = torch.randn(4, 3, 32, 32)
    torch.manual_seed(1)
    found = gradients(model, x)
    torch.manual_seed(1)
    with plain_formulation():
        expected = gradients(model, x)
    assert max(errors(found, expected).values()) < 2e-5


def test_frozen_parameters_get_no_gradient_and_the_others_theirs():
    model = backbone({})
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("kernel" in name or "bias" in name)
    x = torch.randn(IMAGES)
    with only_fast_paths():
        found = gradients(model, x)
    with plain_formulation():
        expected = gradients(model, x)
    assert not any(name.endswith(".weight") for name in found)
    assert max(errors(found, expected).values()) < 2e-5


def test_a_block_may_be_used_twice_in_one_pass_and_pulled_back_twice():
    model = block({}).double()
    x = torch.randn(2, 5, 7, 6, dtype=torch.double, requires_grad=True)
    with only_fast_paths():
        loss = model(model(x)).square().sum()
    with plain_formulation():
        (expected,) = torch.autograd.grad(model(model(x)).square().sum(), x)
    for _ in range(2):
        (found,) = torch.autograd.grad(loss, x, retain_graph=True)
        torch.testing.assert_close(found, expected)


def test_a_gradient_penalty_is_that_of_the_plain_formulation():
    model = backbone({}).double()
    x = torch.randn(1, 3, 24, 20, dtype=torch.double, requires_grad=True)

    def penalty() -> dict[str, Tensor]:
        def slope(x):
            (gradient,) = torch.autograd.grad(model(x)["stage2"].square().sum(), x, create_graph=True)
            return gradient.square()

        return gradients(model, x, slope)

    with only_fast_paths():
        found = penalty()
    with plain_formulation():
        expected = penalty()
    assert max(errors(found, expected).values()) < 1e-10


# Memory


def test_half_of_what_plain_autograd_keeps_is_kept_and_less_with_checkpointing():
    model = backbone({}, depths=[2, 2], embed_dim=16, drop_path_rate=0.1).train()
    saving = backbone({}, depths=[2, 2], embed_dim=16, drop_path_rate=0.1, use_checkpoint=True).train()
    x = torch.randn(1, 3, 160, 160)
    with plain_formulation():
        plain = saved_bytes(model, lambda: model(x))
    assert saved_bytes(model, lambda: model(x)) < 0.55 * plain
    assert saved_bytes(saving, lambda: saving(x)) < 0.2 * plain


# Ways to run it


@ALL_SETTINGS
def test_gradients_lie_in_memory_as_their_parameters_do(settings):
    model = backbone(settings).train()
    parameters = [p for name, p in model.named_parameters() if ".blocks." in name]
    with only_fast_paths():
        loss = model(torch.randn(IMAGES))["stage2"].sum()
    found = torch.autograd.grad(loss, parameters)
    assert [gradient.stride() for gradient in found] == [p.stride() for p in parameters]


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_composes_with_activation_checkpointing(use_reentrant):
    model = backbone({}).train()
    x = torch.randn(IMAGES)

    def checkpointed(x):
        return torch.utils.checkpoint.checkpoint(lambda x: model(x)["stage2"], x, use_reentrant=use_reentrant)

    with only_fast_paths():
        found = gradients(model, x, checkpointed)
    expected = gradients(model, x, lambda x: model(x)["stage2"])
    assert max(errors(found, expected).values()) < 1e-6


def test_composes_with_distributed_data_parallel():
    model = backbone({})
    x = torch.randn(IMAGES)
    expected = gradients(model, x)
    with tempfile.TemporaryDirectory() as folder:
        store = torch.distributed.FileStore(str(Path(folder) / "store"), 1)
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        try:
            parallel = nn.parallel.DistributedDataParallel(model)
            with only_fast_paths():
                found = gradients(model, x, parallel)
        finally:
            torch.distributed.destroy_process_group()
    assert max(errors(found, expected).values()) < 1e-6


def test_a_copy_of_a_model_in_use_has_gradients_of_its_own():
    model = backbone({})
    x = torch.randn(IMAGES)
    expected = gradients(model, x)
    twin = copy.deepcopy(model)
    assert max(errors(gradients(twin, x), expected).values()) < 1e-6
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert max(errors(gradients(model, x), expected).values()) < 1e-6
