import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, ModulatedDeformConv, ShapeSpec
from detectron2.utils.registry import Registry
from torch import nn

PIXEL_DECODERS = Registry("PIXEL_DECODERS")


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention by grid_sample: each position looks at a few points of each level."""

    def __init__(self, width, levels, heads=4, points=2):
        super().__init__()
        self.shape = (heads, levels, points)
        self.offsets = nn.Linear(width, heads * levels * points * 2)
        self.weights = nn.Linear(width, heads * levels * points)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, queries, centers, values):
        heads, levels, points = self.shape
        batch, count, width = queries.shape
        weights = self.weights(queries).view(batch, count, heads, levels * points).softmax(-1)
        weights = weights.view(batch, count, heads, levels, points)
        offsets = self.offsets(queries).view(batch, count, heads, levels, points, 2)
        result = 0
        for level, value in enumerate(values):
            scale = offsets.new_tensor([value.shape[-1], value.shape[-2]])
            grid = 2 * (centers[None, :, None, None] + offsets[:, :, :, level] / scale) - 1
            value = self.value(value.movedim(1, -1)).movedim(-1, 1).reshape(batch * heads, -1, *value.shape[2:])
            sampled = F.grid_sample(value, grid.transpose(1, 2).flatten(0, 1), align_corners=False)
            result = result + sampled * weights[:, :, :, level].transpose(1, 2).reshape(batch * heads, 1, count, points)
        return self.out(result.sum(-1).view(batch, width, count).transpose(1, 2))


@PIXEL_DECODERS.register()
class DeformablePixelDecoder(nn.Module):
    def __init__(self, cfg, input_shape: dict[str, ShapeSpec]):
        super().__init__()
        width = cfg.MODEL.QUERY_MASKS.WIDTH
        shapes = sorted(input_shape.items(), key=lambda item: item[1].stride)
        self.finest = shapes[0][0]
        self.levels = [name for name, _ in shapes if name in cfg.MODEL.SEM_SEG_HEAD.ENCODER_IN_FEATURES]
        self.project = nn.ModuleDict({name: Conv2d(shape.channels, width, 1) for name, shape in shapes})
        self.attention = DeformableAttention(width, len(self.levels))
        self.norm = nn.LayerNorm(width)
        self.offset = Conv2d(width, 27, 3, padding=1)
        nn.init.zeros_(self.offset.weight)
        self.smooth = ModulatedDeformConv(width, width, 3, padding=1, bias=False)

    def forward(self, features):
        maps = {name: layer(features[name]) for name, layer in self.project.items()}
        levels = [maps[name] for name in self.levels]
        sizes = [level.shape[-2:] for level in levels]
        centers = torch.cat([_centers(*size).to(levels[0]) for size in sizes])
        queries = torch.cat([level.flatten(2) for level in levels], -1).transpose(1, 2)
        queries = self.norm(queries + self.attention(queries, centers, levels))
        parts = queries.transpose(1, 2).split([height * width for height, width in sizes], -1)
        levels = [part.unflatten(-1, size) for part, size in zip(parts, sizes, strict=True)]
        finest = maps[self.finest]
        finest = finest + F.interpolate(levels[0], finest.shape[-2:], mode="bilinear", align_corners=False)
        offset_x, offset_y, mask = self.offset(finest).chunk(3, 1)
        return self.smooth(finest, torch.cat([offset_x, offset_y], 1), mask.sigmoid()), levels[::-1]


def _centers(height, width):
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)
