"""Focal modulation, the operator of the paper (arXiv 2203.11926, section 3.2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class FocalModulation(nn.Module):
    """Modulate each position's query by context gathered around it at several focal levels (equations 4 to 6).

    The context is widened level by level with depth-wise convolutions, ending in the global average; gates,
    predicted per position, weigh the levels into one modulator, which multiplies the query.

    Args:
        dim: channels C.
        focal_level: number of focal levels L before the global one.
        focal_window: kernel size of the first level; each next level's is 2 larger.
        bias: whether the projection `f` has a bias.
        proj_drop: dropout probability after the output projection.
        use_post_layernorm_in_modulation: LayerNorm on the modulated query, before the output projection.
        normalize_modulator: divide the gathered context by L + 1.
        layer_norm_eps: epsilon of that LayerNorm.
    """

    def __init__(
        self,
        dim: int,
        focal_level: int = 2,
        focal_window: int = 3,
        *,
        bias: bool = True,
        proj_drop: float = 0.0,
        use_post_layernorm_in_modulation: bool = False,
        normalize_modulator: bool = False,
        layer_norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.focal_level = focal_level
        self.normalize_modulator = normalize_modulator

        # One projection gives query, context, and a gate for each level and for the global context.
        self.f = nn.Linear(dim, 2 * dim + focal_level + 1, bias=bias)
        self.h = nn.Conv2d(dim, dim, kernel_size=1)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        kernels = [focal_window + 2 * level for level in range(focal_level)]
        self.focal_layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim, bias=False), nn.GELU())
            for kernel in kernels
        )
        self.ln = nn.LayerNorm(dim, eps=layer_norm_eps) if use_post_layernorm_in_modulation else None

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, H, W, C)` to `(N, H, W, C)`."""
        query, context, gates = self.f(x).split([self.dim, self.dim, self.focal_level + 1], dim=-1)

        # Convolutions see (N, C, H, W) in channels-last memory: a view, as all tensors here are (N, H, W, C).
        context = context.permute(0, 3, 1, 2)
        gates = gates.permute(0, 3, 1, 2)
        gathered = 0
        for level, focal_layer in enumerate(self.focal_layers):
            context = focal_layer(context)
            gathered = gathered + context * gates[:, level : level + 1]
        global_context = F.gelu(context.mean((2, 3), keepdim=True))
        gathered = gathered + global_context * gates[:, self.focal_level :]
        if self.normalize_modulator:
            gathered = gathered / (self.focal_level + 1)

        modulator = self.h(gathered).permute(0, 2, 3, 1)
        x = query * modulator
        if self.ln is not None:
            x = self.ln(x)
        return self.proj_drop(self.proj(x))

    def extra_repr(self) -> str:
        """The sizes, for `repr`."""
        return f"dim={self.dim}, focal_level={self.focal_level}, normalize_modulator={self.normalize_modulator}"
