"""A small Mask2Former with a small FocalNet on the sample dataset, semantic, from random weights, on two CPU cores.

python tools/make_sample_dataset.py data/sample
python tools/train.py configs/mmseg/mask2former_focalnet_sample.py
"""

_base_ = ["./_base_/mask2former_focalnet_160k_ade20k_512x512.py", "../mmdet/_base_/sample_dataset.py"]

width, heads, side = 64, 4, _base_.side
classes = _base_.things + _base_.stuff
attention = dict(embed_dims=width, num_heads=heads)
encoding = dict(num_feats=width // 2)
model = dict(
    data_preprocessor=dict(size=(side, side)),
    backbone=dict(variant=None, embed_dim=32, depths=[1, 1, 2, 1], drop_path_rate=0.0, init_cfg=None),
    decode_head=dict(
        num_classes=len(classes),
        in_channels=[32, 64, 128, 256],
        feat_channels=width,
        out_channels=width,
        num_queries=20,
        pixel_decoder=dict(
            norm_cfg=dict(num_groups=8),
            encoder=dict(
                num_layers=1,
                layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=dict(embed_dims=width, feedforward_channels=128)),
            ),
            positional_encoding=encoding,
        ),
        positional_encoding=encoding,
        transformer_decoder=dict(
            num_layers=3,
            layer_cfg=dict(
                self_attn_cfg=attention,
                cross_attn_cfg=attention,
                ffn_cfg=dict(embed_dims=width, feedforward_channels=128),
            ),
        ),
        loss_cls=dict(class_weight=[1.0] * len(classes) + [0.1]),
        train_cfg=dict(num_points=1024),
    ),
)

dataset = dict(
    _delete_=True,
    type="BaseSegDataset",
    metainfo=dict(classes=classes, palette=_base_.palette),
    data_root="data/sample",
    reduce_zero_label=True,
)
load = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
        pipeline=[
            *load,
            dict(type="RandomResize", scale=(side, side), ratio_range=(1.0, 1.2), keep_ratio=True),
            dict(type="RandomCrop", crop_size=(side, side), cat_max_ratio=0.75),
            dict(type="RandomFlip", prob=0.5),
            # Any hue: with so few photographs, a network would otherwise know them by their colours.
            dict(type="PhotoMetricDistortion", hue_delta=90),
            dict(type="PackSegInputs"),
        ],
    ),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
        pipeline=[load[0], _base_.resize, load[1], dict(type="PackSegInputs")],
    ),
)
test_dataloader = val_dataloader

iterations = 500
train_cfg = dict(max_iters=iterations, val_interval=iterations)
optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    clip_grad=dict(max_norm=1.0),
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys=dict(_delete_=True, query=dict(decay_mult=0.0))),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", eta_min=0.0, by_epoch=False, begin=50, end=iterations),
]
default_hooks = dict(logger=dict(interval=25), checkpoint=dict(interval=100, max_keep_ckpts=2))
randomness = dict(seed=0)
