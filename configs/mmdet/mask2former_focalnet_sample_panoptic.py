"""A small Mask2Former with a small FocalNet on the sample dataset, panoptic, from random weights, on two CPU cores.

python tools/make_sample_dataset.py data/sample
python tools/train.py configs/mmdet/mask2former_focalnet_sample_panoptic.py
"""

_base_ = ["./_base_/mask2former_focalnet_coco-panoptic.py", "./_base_/sample_dataset.py"]

width, heads, side = 64, 4, _base_.side
classes = _base_.things + _base_.stuff
counts = dict(num_things_classes=len(_base_.things), num_stuff_classes=len(_base_.stuff))
attention = dict(embed_dims=width, num_heads=heads)
encoding = dict(num_feats=width // 2)
model = dict(
    data_preprocessor=dict(batch_augments=[dict(type="BatchFixedSizePad", size=(side, side), pad_seg=True)]),
    backbone=dict(variant=None, embed_dim=32, depths=[1, 1, 2, 1], drop_path_rate=0.0, init_cfg=None),
    panoptic_head=dict(
        **counts,
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
    ),
    panoptic_fusion_head=counts,
    train_cfg=dict(num_points=1024),
    test_cfg=dict(max_per_image=20),
)

dataset = dict(
    data_root="data/sample",
    metainfo=dict(classes=classes, thing_classes=_base_.things, stuff_classes=_base_.stuff, palette=_base_.palette),
)
load_image = dict(type="LoadImageFromFile")
load_labels = dict(type="LoadPanopticAnnotations", with_bbox=True, with_mask=True, with_seg=True)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        **dataset,
        ann_file="coco/panoptic_training.json",
        data_prefix=dict(img="images/training/", seg="coco/panoptic_training/"),
        pipeline=[load_image, load_labels, *_base_.augmentation],
    ),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        **dataset,
        ann_file="coco/panoptic_validation.json",
        data_prefix=dict(img="images/validation/", seg="coco/panoptic_validation/"),
        pipeline=[load_image, _base_.resize, load_labels, _base_.pack_test],
    ),
)
test_dataloader = val_dataloader
validation = "data/sample/coco/panoptic_validation"
val_evaluator = dict(
    _delete_=True, type="CocoPanopticMetric", ann_file=f"{validation}.json", seg_prefix=f"{validation}/", classwise=True
)
test_evaluator = val_evaluator

iterations = 500
train_cfg = dict(max_iters=iterations, val_interval=iterations, dynamic_intervals=None)
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
log_processor = dict(window_size=25)
randomness = dict(seed=0)
