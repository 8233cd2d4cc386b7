"""Transformers of mmdetection, which take the sizes of their maps from tensors: here they are whole numbers.

Exporters follow a size that may be any as a number, and lose it in a tensor.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.dense_heads import DETRHead
from mmdet.models.detectors import DINO, DeformableDETR
from mmdet.models.layers.msdeformattn_pixel_decoder import MSDeformAttnPixelDecoder
from torch import Tensor, nn

from focalnet_backbone.features.preparation import sides

Sizes = Sequence[tuple[int, int]]
"""Height and width of each map, in the order of their places in a sequence."""


class QueriedBoxes(nn.Module):
    """Deformable DETR and DINO: boxes that queries tell, of one image without padding.

    Args:
        model: the detector; its attention is replaced in place.

    Raises:
        ValueError: it is of another kind, or its input is padded.
    """

    has_masks = False

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        kind = type(model).__name__
        head = getattr(model, "bbox_head", None)
        plain = getattr(type(head), "_predict_by_feat_single", None) is DETRHead._predict_by_feat_single
        if type(model) not in (DINO, DeformableDETR) or not model.as_two_stage or not plain:
            raise ValueError(f"a {kind} of mmdetection with a {type(head).__name__} cannot be exported")
        if model.data_preprocessor.pad_size_divisor != 1:
            raise ValueError(f"a {kind} of padded photos (data_preprocessor.pad_size_divisor) cannot be exported")
        self.transformer = attend_to_sizes(model)
        # Theirs are of linspace, for which exporters must know the sizes.
        model.encoder.get_encoder_reference_points = _reference_points
        model.gen_encoder_output_proposals = self._propose

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes `(n, 4)` in an input of a size, scores and labels `(n,)`, the best first."""
        model = self.transformer
        shared = {
            "spatial_shapes": [sides(x, 2, 3) for x in maps],
            "level_start_index": None,
            "valid_ratios": maps[0].new_ones(1, len(maps), 2),
        }
        positions = [
            model.positional_encoding(None, input=x) + model.level_embed[level][:, None, None]
            for level, x in enumerate(maps)
        ]
        encoded = model.forward_encoder(feat=_sequence(maps), feat_mask=None, feat_pos=_sequence(positions), **shared)
        queries, _ = model.pre_decoder(**encoded)
        decoded = model.forward_decoder(memory_mask=None, **queries, **shared)
        logits, boxes = model.bbox_head(**decoded)
        found = model.bbox_head._predict_by_feat_single(logits[-1][0], boxes[-1][0], {"img_shape": size}, rescale=False)
        return found.bboxes, found.scores, found.labels

    def _propose(self, memory: Tensor, memory_mask: None, spatial_shapes: Sizes) -> tuple[Tensor, Tensor]:
        """`gen_encoder_output_proposals`: what is known of each place, and a box there before the sigmoid."""
        model = self.transformer
        torch._check(sides(memory, 1)[0] >= model.num_queries)
        widths = [
            torch.full((height * width, 2), 0.05 * 2.0**level) for level, (height, width) in enumerate(spatial_shapes)
        ]
        boxes = torch.cat([_centres(spatial_shapes), torch.cat(widths)], dim=-1)[None].to(memory)
        inside = ((boxes > 0.01) & (boxes < 0.99)).all(-1, keepdim=True)
        known = model.memory_trans_norm(model.memory_trans_fc(memory.masked_fill(~inside, 0.0)))
        return known, torch.log(boxes / (1 - boxes)).masked_fill(~inside, torch.inf)


def _reference_points(spatial_shapes: Sizes, valid_ratios: Tensor, device: torch.device) -> Tensor:
    """`get_encoder_reference_points`: the centre of each place, for every level: `(N, places, levels, 2)`."""
    return _centres(spatial_shapes).to(device)[None, :, None] * valid_ratios[:, None]


def _centres(sizes: Sizes) -> Tensor:
    """The centres of all places of maps, as x, y from 0 to 1: `(sum of H * W, 2)`."""
    centres = []
    for height, width in sizes:
        x, y = (torch.arange(width) + 0.5) / width, (torch.arange(height) + 0.5) / height
        centres.append(torch.stack([x[None].expand(height, -1), y[:, None].expand(-1, width)], dim=-1).reshape(-1, 2))
    return torch.cat(centres)


def attend_to_sizes(model: nn.Module) -> nn.Module:
    """Replace deformable attention, and the pixel decoder that is made of it, in place."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, MultiScaleDeformableAttention):
                setattr(module, name, _DeformableAttention(child))
            elif isinstance(child, MSDeformAttnPixelDecoder):
                setattr(module, name, _PixelDecoder(child))
    return model


class _DeformableAttention(nn.Module):
    """`MultiScaleDeformableAttention` (arXiv 2010.04159) by bilinear sampling."""

    def __init__(self, inner: MultiScaleDeformableAttention) -> None:
        super().__init__()
        if not inner.batch_first:
            raise ValueError("deformable attention whose batch is not first (batch_first=False) cannot be exported")
        self.inner = inner

    def forward(
        self,
        query: Tensor,
        key: None = None,
        value: Tensor | None = None,
        identity: Tensor | None = None,
        query_pos: Tensor | None = None,
        *,
        reference_points: Tensor,
        spatial_shapes: Sizes,
        **others: None,
    ) -> Tensor:
        """Attend from queries `(N, Q, C)` to places near reference points or boxes `(N, Q, levels, 2 or 4)`."""
        inner, identity, value = self.inner, query if identity is None else identity, query if value is None else value
        query = query if query_pos is None else query + query_pos
        count, queries, _ = query.shape
        heads, levels, points = inner.num_heads, inner.num_levels, inner.num_points
        maps = inner.value_proj(value).unflatten(-1, (heads, -1)).permute(0, 2, 3, 1).flatten(0, 1)
        offsets = inner.sampling_offsets(query).view(count, queries, heads, levels, points, 2)
        weights = inner.attention_weights(query).view(count, queries, heads, levels * points).softmax(-1)
        weights = weights.transpose(1, 2).reshape(count * heads, 1, queries, levels, points)
        attended = 0
        parts = maps.split([height * width for height, width in spatial_shapes], dim=-1)
        for level, (part, size) in enumerate(zip(parts, spatial_shapes, strict=True)):
            places = _places(reference_points[:, :, None, level, None], offsets[:, :, :, level], size)
            grid = (2 * places - 1).transpose(1, 2).flatten(0, 1)
            sampled = F.grid_sample(part.unflatten(-1, size), grid, align_corners=False)
            attended = attended + (sampled * weights[:, :, :, level]).sum(-1)
        return inner.output_proj(attended.view(count, -1, queries).transpose(1, 2)) + identity


def _places(reference: Tensor, offsets: Tensor, size: tuple[int, int]) -> Tensor:
    """Where to sample `(N, Q, heads, points, 2)`, from 0 to 1: offsets are in pixels, or in parts of half a box."""
    if reference.shape[-1] == 2:
        height, width = size
        return reference + torch.stack([offsets[..., 0] / width, offsets[..., 1] / height], dim=-1)
    return reference[..., :2] + offsets / offsets.shape[3] * reference[..., 2:] * 0.5


class _PixelDecoder(nn.Module):
    """`MSDeformAttnPixelDecoder`, of Mask2Former."""

    def __init__(self, inner: MSDeformAttnPixelDecoder) -> None:
        super().__init__()
        self.inner = attend_to_sizes(inner)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Map a pyramid to the finest map for masks, and maps to attend to, the coarsest first."""
        inner = self.inner
        levels = [inner.num_input_levels - number - 1 for number in range(inner.num_encoder_levels)]
        sizes = [(maps[level].shape[2], maps[level].shape[3]) for level in levels]
        projected, positions, references = [], [], []
        for number, (level, size) in enumerate(zip(levels, sizes, strict=True)):
            projected.append(inner.input_convs[number](maps[level]))
            encoding = inner.postional_encoding(None, input=maps[level])
            positions.append(encoding + inner.level_encoding.weight[number][:, None, None])
            x, y = inner.point_generator.single_level_grid_priors(size, level, device=maps[level].device).unbind(-1)
            stride = inner.strides[level]
            references.append(torch.stack([x / (size[1] * stride), y / (size[0] * stride)], dim=-1))
        reference = torch.cat(references)[None, :, None].expand(maps[0].shape[0], -1, len(levels), -1)
        memory = inner.encoder(
            query=_sequence(projected),
            query_pos=_sequence(positions),
            key_padding_mask=None,
            spatial_shapes=sizes,
            reference_points=reference,
            level_start_index=None,
            valid_ratios=reference.new_ones(maps[0].shape[0], len(levels), 2),
        )
        parts = memory.transpose(1, 2).split([height * width for height, width in sizes], dim=-1)
        found = [part.unflatten(-1, size) for part, size in zip(parts, sizes, strict=True)]
        for level in range(inner.num_input_levels - inner.num_encoder_levels - 1, -1, -1):
            x = inner.lateral_convs[level](maps[level])
            above = F.interpolate(found[-1], size=x.shape[2:], mode="bilinear", align_corners=False)
            found.append(inner.output_convs[level](x + above))
        return inner.mask_feature(found[-1]), found[: inner.num_outs]


def _sequence(maps: Sequence[Tensor]) -> Tensor:
    """Maps `(N, C, H, W)` one after the other: `(N, sum of H * W, C)`."""
    return torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1)
