"""How far a network looks, against gradients of every output."""

from __future__ import annotations

import pytest
import torch

from focalnet_backbone import FocalNet
from focalnet_backbone.pictures.receptive_field import (
    MeanField,
    effective_receptive_field,
    kernel_reach,
    mean_receptive_field,
)

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


def test_the_mean_field_of_a_convolution_is_the_magnitude_of_its_kernel_averaged_over_channels():
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(3, 5, 3, stride=2, padding=1)
    images = (torch.randn(1, 3, 12, 16) for _ in range(2))
    field = mean_receptive_field(pyramid_of(convolution), images, stage=1, channels=5)
    expected = torch.zeros(12, 16)
    # The middle cell of 6 x 8 is the fourth and fifth, whose kernel begins one pixel before twice as much.
    expected[5:8, 7:10] = convolution.weight.norm(dim=1).mean(dim=0).detach()
    torch.testing.assert_close(field.values, expected)
    assert field.center == (7, 9)


def pyramid_of(convolution: torch.nn.Module) -> torch.nn.Module:
    """A network of one map, which is the convolution's."""
    network = torch.nn.Module()
    network.convolution = convolution
    network.forward = lambda x: (convolution(x),)
    return network


def test_the_spread_is_the_side_of_the_square_that_holds_a_share():
    values = torch.zeros(20, 20)
    values[8:12, 8:12] = 1.0
    values[2:18, 2] = 1.0  # As much again, 7 to 8 pixels from the centre.
    field = MeanField(values, (10.0, 10.0))
    assert [field.spread(share) for share in (0.1, 0.5, 0.51, 1.0)] == [2, 4, 16, 16]
