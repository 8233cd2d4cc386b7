"""What a FocalNet is stacked from: the block, and the stage of blocks. All maps inside are `(N, H, W, C)`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from focalnet_backbone.fast.dispatch import may_bypass_submodules, needs_gradients
from focalnet_backbone.fast.inference import run_block
from focalnet_backbone.fast.packing import PackedWeights
from focalnet_backbone.fast.precision import autocast_to_leave
from focalnet_backbone.fast.training import run_branch
from focalnet_backbone.network.config import FocalNetConfig
from focalnet_backbone.network.layers import DropPath, Mlp, PatchEmbed, make_activation
from focalnet_backbone.network.modulation import FocalModulation


class FocalNetBlock(nn.Module):
    """Focal modulation and an MLP, each in a residual branch (figure 2 of the paper).

    Args:
        config: the architecture.
        stage: 0-based index of the stage that the block stands in.
        drop_path: stochastic depth rate of both branches.
    """

    packed_weights: PackedWeights | None = None
    """A fused block's weights as its processor multiplies by them."""

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
        left = autocast_to_leave(self, x)
        if left is None:
            return self._compute(x)
        with torch.autocast("cpu", enabled=False):
            y = self._compute(x.float())
        return y.to(torch.promote_types(x.dtype, self.autocast_dtype(left)))

    def autocast_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The type that both branches have within autocast to a type; layer scale gives them its own."""
        return dtype if self.gamma_1 is None else self.gamma_1.dtype

    def _compute(self, x: Tensor) -> Tensor:
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
        downsample: whether another stage follows.
    """

    def __init__(
        self,
        config: FocalNetConfig,
        stage: int,
        drop_path: list[float],
        use_checkpoint: bool = False,
        *,
        downsample: bool = True,
    ) -> None:
        super().__init__()
        self.use_checkpoint = use_checkpoint
        self.blocks = nn.ModuleList(FocalNetBlock(config, stage, rate) for rate in drop_path)
        self.downsample = None
        if downsample:
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

    def autocast_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The type of the stage's map within autocast to a type, for an input of that type."""
        for block in self.blocks:
            dtype = torch.promote_types(dtype, block.autocast_dtype(dtype))
        return dtype
