"""The twins' backbones as detectron2's."""

from __future__ import annotations

from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone, SimpleFeaturePyramid
from torch import Tensor, nn


class PyramidBackbone(Backbone):
    """A network that gives a tuple of maps, as a `Backbone` with the maps `stage1`, `stage2` and so on.

    Args:
        network: has `channels` and `strides` of its maps.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images `(N, 3, H, W)` to the feature maps by name."""
        return {f"stage{i}": features for i, features in enumerate(self.network(x), start=1)}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature map, by name."""
        shapes = zip(self.network.channels, self.network.strides, strict=True)
        return {f"stage{i}": ShapeSpec(channels=c, stride=s) for i, (c, s) in enumerate(shapes, start=1)}


class PaddedSimpleFeaturePyramid(SimpleFeaturePyramid):
    """`SimpleFeaturePyramid` whose images are padded to multiples of its largest stride, and not to a square.

    detectron2's own says so by a misspelt key, which nothing reads.
    """

    @property
    def size_divisibility(self) -> int:
        """What height and width of its images must be multiples of."""
        return self._size_divisibility
