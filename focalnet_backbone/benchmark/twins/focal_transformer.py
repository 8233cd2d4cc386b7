"""Focal Transformer (arXiv 2107.00641): attention to near tokens finely, and to far ones by their windows' summaries.

Written from section 3 of the paper. Two things are in its authors' release alone, and decide the number of parameters:
windows are summarised by one linear layer over their positions, and what surrounds a window is the four windows shifted
by 3 along both axes, so that the 12 tokens in the middle of each side are met twice (132 keys, not 120).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

WINDOW = 7
SIZES = {
    "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
    "small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)},
    "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
}
# By stage: how far around a window tokens are met one by one, and the side of the region of summarised windows.
EXPANSIONS = (3, 3, 3, 0)
FOCAL_WINDOWS = (7, 5, 3, 1)


def relative_positions(queries: int, keys: int) -> Tensor:
    """For a square of queries and one of keys, the index `(queries**2, keys**2)` of each pair's offset."""
    place = torch.arange(queries)[:, None] - torch.arange(keys) + keys - 1
    side = queries + keys - 1
    return (place[:, None, :, None] * side + place[None, :, None, :]).reshape(queries**2, keys**2)


def surroundings(window: int, expansion: int) -> list[int]:
    """Positions in the expanded window, row by row: of the window itself, and of the four shifted ones outside it."""
    side = window + 2 * expansion

    def positions(top: int, left: int) -> list[int]:
        return [row * side + column for row in range(top, top + window) for column in range(left, left + window)]

    inside = positions(expansion, expansion)
    shifted = [positions(top, left) for top in (2 * expansion, 0) for left in (2 * expansion, 0)]
    return inside + [position for part in shifted for position in part if position not in inside]


class FocalSelfAttention(nn.Module):
    """Attention of the tokens of each window to themselves, to their surroundings and to summarised windows.

    Args:
        dim: channels.
        num_heads: heads.
        expansion: how far around a window tokens are met one by one; 0 for not at all.
        focal_window: side, in windows, of the region whose summaries are met, an odd number.
    """

    def __init__(self, dim: int, num_heads: int, expansion: int, focal_window: int) -> None:
        super().__init__()
        self.num_heads, self.expansion, self.focal_window = num_heads, expansion, focal_window
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.pool = nn.Linear(WINDOW**2, 1)
        near = surroundings(WINDOW, expansion)
        around = len(near) - WINDOW**2
        self.register_buffer("near", torch.tensor(near), persistent=False)
        self.register_buffer("own_pairs", relative_positions(WINDOW, WINDOW), persistent=False)
        self.register_buffer("far_pairs", relative_positions(WINDOW, focal_window), persistent=False)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(num_heads, (2 * WINDOW - 1) ** 2))
        self.relative_position_bias_table_around = nn.Parameter(torch.zeros(num_heads, WINDOW**2, around))
        self.relative_position_bias_table_far = nn.Parameter(torch.zeros(num_heads, (WINDOW + focal_window - 1) ** 2))
        for table in (self.relative_position_bias_table_around, self.relative_position_bias_table_far):
            nn.init.trunc_normal_(table, std=0.02)
        nn.init.constant_(self.pool.weight, 1 / WINDOW**2)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """Map tokens `(N, H, W, C)`, H and W multiples of 7, to the same shape.

        `present` `(1, 1, H, W)` has 0 where there is padding, which nothing attends to.
        """
        n, height, width, dim = x.shape
        rows, columns = height // WINDOW, width // WINDOW
        windows = x.view(n, rows, WINDOW, columns, WINDOW, dim)
        summaries = self.pool(windows.permute(0, 1, 3, 5, 2, 4).flatten(4)).squeeze(4)
        query, key, value = self.qkv(x).chunk(3, dim=3)
        _, far_key, far_value = self.qkv(summaries).chunk(3, dim=3)
        query = query.reshape(n, rows, WINDOW, columns, WINDOW, self.num_heads, -1)
        query = query.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5).flatten(0, 2) * (dim // self.num_heads) ** -0.5
        keys, values = (
            torch.cat([self._near(near), self._far(far)], dim=2) for near, far in ((key, far_key), (value, far_value))
        )
        attention = query @ keys.transpose(2, 3) + self._bias() + self._absence(present, n)
        x = attention.softmax(dim=3) @ values
        x = x.view(n, rows, columns, self.num_heads, WINDOW, WINDOW, -1).permute(0, 1, 4, 2, 5, 3, 6)
        return self.proj(x.reshape(n, height, width, dim))

    def _near(self, x: Tensor) -> Tensor:
        """For each window, the tokens in it and around it: `(windows, heads, keys, C / heads)` of `(N, H, W, C)`."""
        side = WINDOW + 2 * self.expansion
        return self._regions(x, side, WINDOW, self.expansion)[:, :, self.near]

    def _far(self, x: Tensor) -> Tensor:
        """For each window, the summaries of those around it; as `_near`, of `(N, H / 7, W / 7, C)`."""
        return self._regions(x, self.focal_window, 1, self.focal_window // 2)

    def _regions(self, x: Tensor, side: int, stride: int, padding: int) -> Tensor:
        heads = self.num_heads if x.shape[3] > 1 else 1
        regions = F.unfold(x.permute(0, 3, 1, 2), side, padding=padding, stride=stride)
        return regions.view(len(x), heads, -1, side**2, regions.shape[2]).permute(0, 4, 1, 3, 2).flatten(0, 1)

    def _bias(self) -> Tensor:
        """Of each head, `(heads, queries, keys)`."""
        own = self.relative_position_bias_table[:, self.own_pairs]
        far = self.relative_position_bias_table_far[:, self.far_pairs]
        return torch.cat([own, self.relative_position_bias_table_around, far], dim=2)

    def _absence(self, present: Tensor, n: int) -> Tensor:
        """-100 for keys outside the map, `(windows, 1, 1, keys)`."""
        whole_windows = torch.ones_like(present[:, :, ::WINDOW, ::WINDOW])
        found = [self._near(present.permute(0, 2, 3, 1)), self._far(whole_windows.permute(0, 2, 3, 1))]
        return ((torch.cat(found, dim=2) - 1) * 100).transpose(2, 3).repeat(n, 1, 1, 1)


class Block(nn.Module):
    """Focal self-attention and an MLP, each after a LayerNorm and beside a shortcut."""

    def __init__(self, dim: int, num_heads: int, expansion: int, focal_window: int, drop_path: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = FocalSelfAttention(dim, num_heads, expansion, focal_window)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.drop_path = StochasticDepth(drop_path, mode="row")

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(N, H, W, C)` to the same shape."""
        height, width = x.shape[1:3]
        bottom, right = -height % WINDOW, -width % WINDOW
        present = F.pad(x.new_ones(1, 1, height, width), (0, right, 0, bottom))
        attended = self.attn(F.pad(self.norm1(x), (0, 0, 0, right, 0, bottom)), present)
        x = x + self.drop_path(attended[:, :height, :width])
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchMerging(nn.Module):
    """Half the resolution and twice the channels: four neighbours through a LayerNorm and a linear layer."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, H, W, C)` to `(N, ceil(H / 2), ceil(W / 2), 2C)`."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        parts = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(parts, dim=3)))


class FocalTransformer(nn.Module):
    """Focal Transformer as a pyramid of feature maps, with a LayerNorm on each.

    Maps images `(N, 3, H, W)` to four maps `(N, C_i, ceil(H / s_i), ceil(W / s_i))` with `s_i` of `strides` and `C_i`
    of `channels`.

    Args:
        size: `"tiny"`, `"small"` or `"base"`, or None with all of what follows.
        drop_path_rate: stochastic depth of the last block; that of the blocks before grows linearly to it.
        embed_dim: channels of the first stage; each further one has twice as many.
        depths: blocks of each of the four stages.
        num_heads: heads of each stage's attention.
    """

    strides = (4, 8, 16, 32)

    def __init__(
        self,
        size: str | None = "tiny",
        drop_path_rate: float = 0.0,
        *,
        embed_dim: int | None = None,
        depths: tuple[int, ...] | None = None,
        num_heads: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        known = SIZES[size] if size else {}
        embed_dim = embed_dim or known["embed_dim"]
        depths, num_heads = depths or known["depths"], num_heads or known["num_heads"]
        self.channels = [embed_dim * 2**stage for stage in range(4)]
        self.patch_embed = nn.Conv2d(3, embed_dim, 4, stride=4)
        self.patch_norm = nn.LayerNorm(embed_dim)
        rates = iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist())
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(dim, heads, expansion, focal, next(rates)) for _ in range(depth)))
            for dim, depth, heads, expansion, focal in zip(
                self.channels, depths, num_heads, EXPANSIONS, FOCAL_WINDOWS, strict=True
            )
        )
        self.downsamples = nn.ModuleList(PatchMerging(dim) for dim in self.channels[:-1])
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for dim in self.channels)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images `(N, 3, H, W)` to four feature maps, finest first."""
        x = F.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4))
        x = self.patch_norm(self.patch_embed(x).permute(0, 2, 3, 1))
        maps = []
        for stage, norm, down in zip(self.stages, self.norms, [*self.downsamples, nn.Identity()], strict=True):
            x = stage(x)
            maps.append(norm(x).permute(0, 3, 1, 2).contiguous())
            x = down(x)
        return tuple(maps)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear) and module.out_features > 1:
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, FocalSelfAttention):
        nn.init.zeros_(module.pool.bias)
