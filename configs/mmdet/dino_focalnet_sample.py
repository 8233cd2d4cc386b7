"""A small DINO with a small FocalNet on the sample dataset, from random weights, on two CPU cores.

python tools/make_sample_dataset.py data/sample
python tools/train.py configs/mmdet/dino_focalnet_sample.py
"""

_base_ = ["./_base_/dino_focalnet.py", "./_base_/sample_dataset.py"]

levels = 3
model = dict(
    num_queries=30,
    num_feature_levels=levels,
    backbone=dict(variant=None, embed_dim=32, depths=[1, 1, 2, 1], drop_path_rate=0.0, with_cp=False, init_cfg=None),
    neck=dict(in_channels=[64, 128, 256], num_outs=levels),
    encoder=dict(
        num_layers=1, layer_cfg=dict(self_attn_cfg=dict(num_levels=levels), ffn_cfg=dict(feedforward_channels=256))
    ),
    decoder=dict(
        num_layers=2, layer_cfg=dict(cross_attn_cfg=dict(num_levels=levels), ffn_cfg=dict(feedforward_channels=256))
    ),
    bbox_head=dict(num_classes=len(_base_.things)),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=20)),
    test_cfg=dict(max_per_img=30),
)

dataset = dict(data_root="data/sample", metainfo=dict(classes=_base_.things, palette=_base_.palette[:4]))
load = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True)]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(
        **dataset,
        ann_file="coco/instances_training.json",
        data_prefix=dict(img="images/training/"),
        pipeline=[*load, *_base_.augmentation],
    ),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        **dataset,
        ann_file="coco/instances_validation.json",
        data_prefix=dict(img="images/validation/"),
        pipeline=[load[0], _base_.resize, load[1], _base_.pack_test],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file="data/sample/coco/instances_validation.json")
test_evaluator = val_evaluator

epochs = 8
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
optim_wrapper = dict(
    optimizer=dict(lr=4e-4),
    clip_grad=dict(max_norm=1.0),
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys=dict(backbone=dict(lr_mult=1.0))),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", eta_min=0.0, by_epoch=True, begin=0, end=epochs, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=25), checkpoint=dict(interval=2, max_keep_ckpts=2))
randomness = dict(seed=0)
