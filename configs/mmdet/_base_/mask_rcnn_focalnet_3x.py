"""Mask R-CNN with FocalNet-T (srf), 3x schedule: what the twelve models have in common."""

_base_ = ["mmdet::_base_/models/mask-rcnn_r50_fpn.py", "./coco_3x.py"]

model = dict(
    # Published weights have windows of 3; the loader enlarges their kernels.
    backbone=dict(
        _delete_=True,
        type="FocalNet",
        variant="focalnet_tiny_srf",
        focal_windows=[9, 9, 9, 9],
        drop_path_rate=0.3,
        init_cfg=dict(type="Pretrained", checkpoint="focalnet_tiny_srf"),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
