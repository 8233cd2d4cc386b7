import torch
import torch.nn.functional as F
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import nn

from .pixel_decoder import PIXEL_DECODERS


@SEM_SEG_HEADS_REGISTRY.register()
class QueryMasksHead(nn.Module):
    """Queries that look at where their masks were, level by level; each gives a class and a mask."""

    def __init__(self, cfg, input_shape):
        super().__init__()
        node = cfg.MODEL.QUERY_MASKS
        wanted = {name: shape for name, shape in input_shape.items() if name in cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES}
        self.pixel_decoder = PIXEL_DECODERS.get(cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER)(cfg, wanted)
        self.queries = nn.Embedding(node.QUERIES, node.WIDTH)
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "cross": nn.MultiheadAttention(node.WIDTH, 4, batch_first=True),
                    "itself": nn.MultiheadAttention(node.WIDTH, 4, batch_first=True),
                    "norm": nn.LayerNorm(node.WIDTH),
                }
            )
            for _ in range(node.LAYERS)
        )
        self.classes = nn.Linear(node.WIDTH, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES + 1)
        self.masks = nn.Sequential(nn.Linear(node.WIDTH, node.WIDTH), nn.ReLU(), nn.Linear(node.WIDTH, node.WIDTH))

    def forward(self, features):
        mask_features, levels = self.pixel_decoder(features)
        queries = self.queries.weight.expand(len(mask_features), -1, -1)
        outputs = [self.predict(queries, mask_features)]
        for i, layer in enumerate(self.layers):
            level = levels[i % len(levels)]
            mask = F.interpolate(outputs[-1]["pred_masks"].detach(), level.shape[-2:], mode="bilinear").flatten(2) < 0
            mask[mask.all(-1)] = False
            values = level.flatten(2).transpose(1, 2)
            heads = layer["cross"].num_heads
            queries = queries + layer["cross"](queries, values, values, attn_mask=mask.repeat_interleave(heads, 0))[0]
            queries = layer["norm"](queries + layer["itself"](queries, queries, queries)[0])
            outputs.append(self.predict(queries, mask_features))
        return outputs

    def predict(self, queries, mask_features):
        masks = torch.einsum("bqc,bchw->bqhw", self.masks(queries), mask_features)
        return {"pred_logits": self.classes(queries), "pred_masks": masks}
