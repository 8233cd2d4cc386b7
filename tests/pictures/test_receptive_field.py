"""How far a network looks, against gradients of every output."""

from __future__ import annotations

import pytest
import torch

from focalnet_backbone import FocalNet
from focalnet_backbone.pictures.receptive_field import effective_receptive_field, kernel_reach

KNOBS = {"embed_dim": 4, "depths": [1, 2, 1], "focal_levels": [2, 1, 1], "focal_windows": [3, 5, 3]}


def without_global_context(model: FocalNet) -> FocalNet:
    """Close the gate of the global context everywhere, so that kernels alone carry what is far."""
    with torch.no_grad():
        for module in model.modules():
            if hasattr(module, "focal_layers"):
                module.f.weight[-1] = 0
                module.f.bias[-1] = 0
    return model


@pytest.mark.parametrize(
    "knobs", [{}, {"use_conv_embed": True}, {"use_conv_embed": True, "conv_embed_stem_padding": 3}]
)
@pytest.mark.parametrize(("stage", "block"), [(1, 1), (2, 1), (2, 2), (3, 1)])
def test_the_kernels_reach_is_where_gradients_are_not_zero(knobs, stage, block):
    torch.manual_seed(0)
    model = without_global_context(FocalNet(**KNOBS, **knobs, out_indices=[3])).double()
    reach = kernel_reach(model, stage, block)
    pixels = torch.randn(1, 3, 384, 8, dtype=torch.float64)
    row = 384 // reach.stride // 2
    module = model.layers[stage - 1].blocks[block - 1]
    (field,) = effective_receptive_field(model, pixels, module, [(row, 0)])
    rows = field.sum(1).nonzero()[:, 0]
    assert (rows.min().item(), rows.max().item()) == (
        row * reach.stride - reach.before,
        row * reach.stride + reach.after,
    )


def test_the_effective_field_is_the_gradient_of_the_place():
    torch.manual_seed(0)
    model = FocalNet(**KNOBS, out_indices=[2], drop_path_rate=0.5).double().train()
    pixels = torch.randn(1, 3, 24, 16, dtype=torch.float64)
    block = model.layers[1].blocks[-1]
    (field,) = effective_receptive_field(model, pixels, block, [(1, 1)])
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())

    model.eval()
    outputs = []
    block.register_forward_hook(lambda _, args, output: outputs.append(output))
    step, row, column = 1e-6, 9, 5
    for channel in range(3):
        for sign in (1, -1):
            moved = pixels.clone()
            moved[0, channel, row, column] += sign * step
            with torch.no_grad():
                model(moved)
    sums = [output[0, 1, 1].sum() for output in outputs]
    gradient = torch.stack([(sums[2 * c] - sums[2 * c + 1]) / (2 * step) for c in range(3)])
    torch.testing.assert_close(field[row, column].double(), gradient.norm(), rtol=1e-5, atol=1e-8)
