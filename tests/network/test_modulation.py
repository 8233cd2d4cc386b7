"""FocalModulation against the paper's equations and its own invariances."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from focalnet_backbone import FocalModulation


def modulate_by_the_paper(m: FocalModulation, x: torch.Tensor) -> torch.Tensor:
    """Equations 4 to 6 written position by position, with explicit windows instead of convolutions."""
    _, height, width, dim = x.shape
    projected = x @ m.f.weight.T + m.f.bias
    query, context, gates = projected[..., :dim], projected[..., dim : 2 * dim], projected[..., 2 * dim :]
    gathered = torch.zeros_like(context)
    for level, layer in enumerate(m.focal_layers):
        kernel = layer[0].weight[:, 0]
        reach = kernel.shape[-1] // 2
        padded = F.pad(context, (0, 0, reach, reach, reach, reach))
        summed = torch.zeros_like(context)
        for dy in range(kernel.shape[-1]):
            for dx in range(kernel.shape[-1]):
                summed += padded[:, dy : dy + height, dx : dx + width] * kernel[:, dy, dx]
        context = F.gelu(summed)
        gathered += context * gates[..., level, None]
    gathered += F.gelu(context.flatten(1, 2).mean(1))[:, None, None] * gates[..., -1, None]
    if m.normalize_modulator:
        gathered /= len(m.focal_layers) + 1
    x = query * (gathered @ m.h.weight[:, :, 0, 0].T + m.h.bias)
    if m.ln is not None:
        x = F.layer_norm(x, (dim,), m.ln.weight, m.ln.bias)
    return x @ m.proj.weight.T + m.proj.bias


@pytest.mark.parametrize("normalize_modulator", [False, True])
@pytest.mark.parametrize("use_post_layernorm_in_modulation", [False, True])
@pytest.mark.parametrize(("levels", "window"), [(1, 1), (2, 3), (3, 9)])
def test_equals_the_papers_equations(levels, window, use_post_layernorm_in_modulation, normalize_modulator):
    torch.manual_seed(0)
    modulation = FocalModulation(
        6,
        levels,
        window,
        use_post_layernorm_in_modulation=use_post_layernorm_in_modulation,
        normalize_modulator=normalize_modulator,
    ).double()
    x = torch.randn(2, 7, 5, 6, dtype=torch.double)
    torch.testing.assert_close(modulation(x), modulate_by_the_paper(modulation, x), rtol=1e-12, atol=1e-12)


def test_gradients_pass_gradcheck():
    torch.manual_seed(0)
    modulation = FocalModulation(3, 2, 3, use_post_layernorm_in_modulation=True, normalize_modulator=True).double()
    x = torch.randn(2, 4, 3, 3, dtype=torch.double, requires_grad=True)
    names, values = zip(*modulation.named_parameters(), strict=True)

    def call(x, *values):
        return torch.func.functional_call(modulation, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *values))


def test_each_levels_kernel_is_two_wider_than_the_last():
    kernels = [layer[0].kernel_size[0] for layer in FocalModulation(4, 4, 3).focal_layers]
    assert kernels == [3, 5, 7, 9]


def test_without_the_global_gate_a_far_change_has_no_effect():
    torch.manual_seed(0)
    modulation = FocalModulation(4, 2, 3)
    with torch.no_grad():
        modulation.f.weight[-1] = 0
        modulation.f.bias[-1] = 0
    x = torch.randn(1, 20, 20, 4)
    changed = x.clone()
    changed[:, 0, 0] += 1
    # A 3x3 and a 5x5 kernel reach three positions.
    difference = (modulation(x) - modulation(changed)).abs().amax((0, 3))
    assert difference[4:].max() == 0
    assert difference[:, 4:].max() == 0
    assert difference[0, 0] > 0
