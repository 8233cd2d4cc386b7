"""ATSS with FocalNet-T (srf) on COCO, 3x schedule, on the backbone's maps at strides 8, 16 and 32."""

_base_ = ["mmdet::atss/atss_r50_fpn_1x_coco.py"]
custom_imports = dict(imports=["focalnet_backbone.openmmlab"], allow_failed_imports=False)

model = dict(
    # Published weights have windows of 3; the loader enlarges their kernels.
    backbone=dict(
        _delete_=True,
        type="FocalNet",
        variant="focalnet_tiny_srf",
        focal_windows=[11, 9, 9, 7],
        drop_path_rate=0.3,
        out_indices=(1, 2, 3),
        init_cfg=dict(type="Pretrained", checkpoint="focalnet_tiny_srf"),
    ),
    neck=dict(in_channels=[192, 384, 768], start_level=0),
)

short_sides = dict(type="RandomChoiceResize", scales=[(side, 1333) for side in range(480, 801, 32)], keep_ratio=True)
cropped = [
    dict(type="RandomChoiceResize", scales=[(side, 1333) for side in (400, 500, 600)], keep_ratio=True),
    dict(type="RandomCrop", crop_type="absolute_range", crop_size=(384, 600), allow_negative_crop=True),
    short_sides,
]
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="RandomChoice", transforms=[[short_sides], cropped]),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

train_cfg = dict(max_epochs=36)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=36, milestones=[27, 33], gamma=0.1),
]
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={"norm": dict(decay_mult=0.0)}),
)
