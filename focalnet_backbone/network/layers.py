"""The layers of a block besides focal modulation: patch embedding, MLP, stochastic depth. Maps are `(N, H, W, C)`."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def make_activation(hidden_act: str | Callable) -> Callable[[Tensor], Tensor]:
    """The activation for a config's `hidden_act`: a name, a function or module, or a module class."""
    if isinstance(hidden_act, type):
        return hidden_act()
    if callable(hidden_act):
        return hidden_act
    return {
        "gelu": nn.GELU(),
        "gelu_new": nn.GELU(approximate="tanh"),
        "relu": nn.ReLU(),
        "selu": nn.SELU(),
    }[hidden_act]


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): in training, drop a branch's output for whole samples.

    Args:
        rate: probability that a sample loses the branch; the others are scaled by 1 / (1 - rate).
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    @property
    def is_active(self) -> bool:
        """Whether branches are dropped: in training, at a rate above 0."""
        return self.training and self.rate > 0

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, ...)` to `(N, ...)`."""
        if not self.is_active:
            return x
        if self.rate == 1.0:
            return x * 0
        keep = 1.0 - self.rate
        return x * x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep).div_(keep)

    def extra_repr(self) -> str:
        """The rate, for `repr`."""
        return f"rate={self.rate:.3f}"


class PatchEmbed(nn.Module):
    """A strided convolution and LayerNorm: the stem (stride = patch size) and the stages' downsampling (stride 2).

    Sizes that the stride does not divide are zero-padded on the right and bottom, as the release does.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: stride, and kernel size too unless `overlapping`.
        overlapping: convolution with overlap: 7x7 for the stem's stride of 4, 3x3 with padding 1 for stride 2.
        stem_padding: padding of the overlapping stem in pixels.
        layer_norm_eps: epsilon of the LayerNorm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        overlapping: bool = False,
        stem_padding: int = 2,
        layer_norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.stride = stride
        kernel_size, padding = (stride, 0)
        if overlapping:
            kernel_size, padding = (7, stem_padding) if stride == 4 else (3, 1)
        self.proj = nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=padding)
        # Zeros on the right and bottom that make the output ceil(size / stride), and change nothing if the stride
        # divides the size. A constant, where "up to the next multiple" would entangle dynamic shapes.
        self.extra_padding = kernel_size - 1 - 2 * padding
        self.norm = nn.LayerNorm(out_channels, eps=layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, C_in, H, W)` to `(N, ceil(H / stride), ceil(W / stride), C_out)`."""
        # While a graph is recorded, pad always, so that it serves every size.
        recording = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if recording or x.shape[2] % self.stride or x.shape[3] % self.stride:
            x = F.pad(x, (0, self.extra_padding, 0, self.extra_padding))
        if not torch._C._are_functorch_transforms_active():  # vmap has no layouts of memory.
            x = x.contiguous(memory_format=torch.channels_last)
        x = self.proj(x)
        return self.norm(x.permute(0, 2, 3, 1))


class Mlp(nn.Module):
    """Two linear layers around an activation, with dropout after both.

    Args:
        dim: channels in and out.
        hidden_dim: channels between.
        activation: function of a tensor.
        dropout: dropout probability.
    """

    def __init__(self, dim: int, hidden_dim: int, activation: Callable[[Tensor], Tensor], dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = activation
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., dim)` to `(..., dim)`."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))
