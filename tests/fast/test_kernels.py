"""The kernels that were chosen for speed compute what torch's own do."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from focalnet_backbone.fast import kernels

SIZES = pytest.mark.parametrize("size", [1, 3, 9, 11, 13])
DTYPES = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)]
)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    return ((found.double() - expected).norm() / expected.norm()).item()


@DTYPES
@SIZES
@pytest.mark.parametrize("shape", [(2, 7, 9, 16), (1, 20, 150, 5)], ids=["two small maps", "wide map"])
def test_depthwise_and_its_gradients_are_those_of_the_convolution(shape, size, dtype, tolerance):
    torch.manual_seed(0)
    channels = shape[-1]
    x, gradient = torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype)
    kernel = torch.randn(channels, 1, size, size, dtype=dtype)
    exact = [tensor.double().requires_grad_() for tensor in (x, kernel)]
    expected = F.conv2d(exact[0].permute(0, 3, 1, 2), exact[1], padding=size // 2, groups=channels).permute(0, 2, 3, 1)
    to_x, to_kernel = torch.autograd.grad(expected, exact, gradient.double())
    assert relative_error(kernels.depthwise(x, kernel), expected) < tolerance
    assert relative_error(kernels.depthwise_gelu(x, kernel), F.gelu(expected)) < tolerance
    assert relative_error(kernels.depthwise_input_gradient(gradient, x, kernel), to_x) < tolerance
    assert relative_error(kernels.depthwise_weight_gradient(gradient, x, kernel), to_kernel) < tolerance


@pytest.mark.parametrize("bias", [None, torch.arange(5.0)], ids=["no bias", "bias"])
def test_linear_adds_and_writes_where_it_is_told(bias):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 7, 6), torch.randn(5, 6)
    expected = x @ weight.T + (0 if bias is None else bias)
    out, base = torch.empty(2, 7, 5), torch.randn(2, 7, 5)
    torch.testing.assert_close(kernels.linear(x, weight, bias), expected)
    assert kernels.linear(x, weight, bias, out=out) is out
    torch.testing.assert_close(out, expected)
    before = base.clone()
    torch.testing.assert_close(kernels.linear(x, weight, bias, base=base), base + expected)
    assert torch.equal(base, before)
    assert kernels.linear(x, weight, bias, base=base, out=out) is out
    torch.testing.assert_close(out, base + expected)
