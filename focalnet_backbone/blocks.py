"""The parts that a FocalNet is stacked from: patch embedding, block, stage. All maps inside are `(N, H, W, C)`."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from focalnet_backbone.config import FocalNetConfig
from focalnet_backbone.dispatch import may_bypass_submodules, needs_gradients
from focalnet_backbone.inference import run_block
from focalnet_backbone.modulation import FocalModulation
from focalnet_backbone.recompute import run_branch


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
        # While compiling, pad always, so that one graph serves every size.
        if torch.compiler.is_compiling() or x.shape[2] % self.stride or x.shape[3] % self.stride:
            x = F.pad(x, (0, self.extra_padding, 0, self.extra_padding))
        x = self.proj(x.contiguous(memory_format=torch.channels_last))
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


class FocalNetBlock(nn.Module):
    """Focal modulation and an MLP, each in a residual branch (figure 2 of the paper).

    Args:
        config: the architecture.
        stage: 0-based index of the stage that the block stands in.
        drop_path: stochastic depth rate of both branches.
    """

    def __init__(self, config: FocalNetConfig, stage: int, drop_path: float = 0.0) -> None:
        super().__init__()
        dim = config.stage_channels[stage]
        self.use_post_layernorm = config.use_post_layernorm
        self.norm1 = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.modulation = FocalModulation(
            dim,
            config.focal_levels[stage],
            config.focal_windows[stage],
            proj_drop=config.hidden_dropout_prob,
            use_post_layernorm_in_modulation=config.use_post_layernorm_in_modulation,
            normalize_modulator=config.normalize_modulator,
            layer_norm_eps=config.layer_norm_eps,
        )
        self.norm2 = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio), make_activation(config.hidden_act), config.hidden_dropout_prob)
        self.drop_path = DropPath(drop_path)
        if config.use_layerscale:
            self.gamma_1 = nn.Parameter(torch.full((dim,), float(config.layerscale_value)))
            self.gamma_2 = nn.Parameter(torch.full((dim,), float(config.layerscale_value)))
        else:
            self.gamma_1 = self.gamma_2 = None

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, H, W, C)` to `(N, H, W, C)`."""
        if not may_bypass_submodules(self, x):
            branch = self._plain_branch
        elif needs_gradients(self, x):
            branch = self._saving_branch
        elif not self.drop_path.is_active:
            return run_block(self, x)
        else:
            branch = self._plain_branch
        x = x + self.drop_path(branch(x, self.modulation, self.norm1, self.gamma_1))
        return x + self.drop_path(branch(x, self.mlp, self.norm2, self.gamma_2))

    def _plain_branch(self, x: Tensor, layer: nn.Module, norm: nn.LayerNorm, gamma: Tensor | None) -> Tensor:
        """The definition, which the other ways of computing a block follow."""
        x = norm(layer(x)) if self.use_post_layernorm else layer(norm(x))
        return x if gamma is None else gamma * x

    def _saving_branch(self, x: Tensor, layer: nn.Module, norm: nn.LayerNorm, gamma: Tensor | None) -> Tensor:
        """The same by functions that keep less for the backward pass."""
        if not self.use_post_layernorm:
            x = run_branch(layer, norm, gamma, x)
        else:
            weight, bias = (norm.weight, norm.bias) if gamma is None else (norm.weight * gamma, norm.bias * gamma)
            x = F.layer_norm(run_branch(layer, None, None, x), norm.normalized_shape, weight, bias, norm.eps)
        # Under autocast, the product with gamma has the type of gamma.
        return x if gamma is None else x.to(torch.promote_types(x.dtype, gamma.dtype))


class FocalNetStage(nn.Module):
    """The blocks of one resolution, and the downsampling to the next one, which the caller applies.

    Args:
        config: the architecture.
        stage: 0-based index of the stage.
        drop_path: stochastic depth rate of each block.
        use_checkpoint: recompute each block in the backward pass instead of keeping its activations.
    """

    def __init__(
        self, config: FocalNetConfig, stage: int, drop_path: list[float], use_checkpoint: bool = False
    ) -> None:
        super().__init__()
        self.use_checkpoint = use_checkpoint
        self.blocks = nn.ModuleList(FocalNetBlock(config, stage, rate) for rate in drop_path)
        self.downsample = None
        if stage + 1 < len(config.depths):
            self.downsample = PatchEmbed(
                config.stage_channels[stage],
                config.stage_channels[stage + 1],
                stride=2,
                overlapping=config.use_conv_embed,
                layer_norm_eps=config.layer_norm_eps,
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, H, W, C)` to `(N, H, W, C)`: the stage's map before its downsampling."""
        for block in self.blocks:
            if self.use_checkpoint and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x
