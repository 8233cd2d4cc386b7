"""A small UPerNet with a small FocalNet on the sample dataset, from random weights, on two CPU cores.

python tools/make_sample_dataset.py data/sample
python tools/train.py configs/mmseg/upernet_focalnet_sample.py
"""

_base_ = ["mmseg::_base_/models/upernet_swin.py", "mmseg::_base_/default_runtime.py"]
custom_imports = dict(imports=["focalnet_backbone.openmmlab"], allow_failed_imports=False)

norm_cfg = dict(type="BN")
model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(
        _delete_=True,
        type="FocalNet",
        embed_dim=32,
        depths=[1, 1, 2, 1],
        focal_windows=[5, 5, 3, 3],
        drop_path_rate=0.0,
    ),
    decode_head=dict(
        in_channels=[32, 64, 128, 256],
        channels=64,
        num_classes=8,
        norm_cfg=norm_cfg,
        # Objects are small, and most of an image is photograph.
        loss_decode=dict(class_weight=[1.5, 1.5, 2.0, 2.0, 0.7, 1.0, 1.0, 1.0]),
    ),
    auxiliary_head=dict(in_channels=128, channels=32, num_classes=8, norm_cfg=norm_cfg),
)

dataset = dict(
    type="BaseSegDataset",
    metainfo=dict(
        classes=("ball", "tile", "cone", "star", "photograph", "grass", "gravel", "brick"),
        palette=[
            [230, 60, 60],
            [60, 90, 230],
            [250, 170, 30],
            [240, 230, 60],
            [150, 150, 150],
            [70, 170, 70],
            [110, 80, 60],
            [190, 90, 200],
        ],
    ),
    data_root="data/sample",
    reduce_zero_label=True,
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations"),
            dict(type="RandomResize", scale=(128, 128), ratio_range=(1.0, 1.2), keep_ratio=True),
            dict(type="RandomCrop", crop_size=(128, 128), cat_max_ratio=0.75),
            dict(type="RandomFlip", prob=0.5),
            # Any hue: with so few photographs, a network would otherwise know them by their colours.
            dict(type="PhotoMetricDistortion", hue_delta=90),
            dict(type="PackSegInputs"),
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(128, 128), keep_ratio=True),
            dict(type="LoadAnnotations"),
            dict(type="PackSegInputs"),
        ],
    ),
)
test_dataloader = val_dataloader
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="Resize", scale=(side, side), keep_ratio=True) for side in (112, 128, 144)],
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
            [dict(type="LoadAnnotations")],
            [dict(type="PackSegInputs")],
        ],
    ),
]
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator

iterations = 1200
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations, val_interval=iterations)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
    paramwise_cfg=dict(custom_keys={"norm": dict(decay_mult=0.0)}),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", eta_min=0.0, by_epoch=False, begin=100, end=iterations),
]
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=100, max_keep_ckpts=2),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    visualization=dict(type="SegVisualizationHook"),
)
randomness = dict(seed=0)
