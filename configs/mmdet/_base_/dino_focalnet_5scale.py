"""DINO with FocalNet-L (4 focal levels) on maps of 5 scales, the first at stride 4; the recipe is that of 4 scales."""

_base_ = ["./dino_focalnet.py"]

levels = 5
model = dict(
    num_feature_levels=levels,
    backbone=dict(
        variant="focalnet_large_fl4", out_indices=(0, 1, 2, 3), init_cfg=dict(checkpoint="focalnet_large_fl4")
    ),
    neck=dict(in_channels=[192, 384, 768, 1536], num_outs=levels),
    encoder=dict(layer_cfg=dict(self_attn_cfg=dict(num_levels=levels))),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(num_levels=levels))),
)
