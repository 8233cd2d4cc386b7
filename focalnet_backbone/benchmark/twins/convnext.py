"""torchvision's ConvNeXt (arXiv 2201.03545) as a pyramid of feature maps."""

from __future__ import annotations

from collections.abc import Sequence

import torchvision
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig, LayerNorm2d


class ConvNeXt(nn.Module):
    """ConvNeXt with a LayerNorm on each stage's map, as its authors use it for detection and segmentation.

    Maps images `(N, 3, H, W)`, H and W multiples of 32, to four maps `(N, C_i, H / s_i, W / s_i)` with `s_i` of
    `strides` and `C_i` of `channels`. The names in its state dict are torchvision's.

    Args:
        size: `"tiny"`, `"small"`, `"base"` or `"large"`; None for one of `width` and `depths`.
        drop_path_rate: stochastic depth of the last block; that of the blocks before grows linearly to it.
        width: channels of the first stage, which double from stage to stage.
        depths: blocks of each of the four stages.
        layer_scale: what each block's scale begins at, where `size` is None; 1e-6 in the published ones.
    """

    strides = (4, 8, 16, 32)

    def __init__(
        self,
        size: str | None,
        drop_path_rate: float = 0.0,
        *,
        width: int = 96,
        depths: Sequence[int] = (3, 3, 9, 3),
        layer_scale: float = 1e-6,
    ) -> None:
        super().__init__()
        if size is None:
            widths = [width, 2 * width, 4 * width, 8 * width, None]
            stages = [CNBlockConfig(widths[i], widths[i + 1], depth) for i, depth in enumerate(depths)]
            model = torchvision.models.ConvNeXt(stages, drop_path_rate, layer_scale, num_classes=1)
        else:
            model = torchvision.models.get_model(f"convnext_{size}", stochastic_depth_prob=drop_path_rate)
        # A stem, and stages with a downsampling between each two.
        self.features = model.features
        width = self.features[0][0].out_channels
        self.channels = [width * 2**stage for stage in range(4)]
        self.norms = nn.ModuleList(LayerNorm2d(channels, eps=1e-6) for channels in self.channels)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images `(N, 3, H, W)` to four feature maps, finest first."""
        maps = []
        for stage, norm in enumerate(self.norms):
            x = self.features[2 * stage + 1](self.features[2 * stage](x))
            maps.append(norm(x))
        return tuple(maps)
