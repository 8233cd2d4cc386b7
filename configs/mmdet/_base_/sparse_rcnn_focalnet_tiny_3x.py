"""Sparse R-CNN of 300 proposals with FocalNet-T (srf) on COCO, 3x schedule.

Multi-scale training, schedule and gradient clipping are mmdetection's, which are the paper's and Sparse R-CNN's own.
"""

_base_ = ["mmdet::sparse_rcnn/sparse-rcnn_r50_fpn_300-proposals_crop-ms-480-800-3x_coco.py"]
custom_imports = dict(imports=["focalnet_backbone.openmmlab"], allow_failed_imports=False)

model = dict(
    # Published weights have windows of 3; the loader enlarges their kernels.
    backbone=dict(
        _delete_=True,
        type="FocalNet",
        variant="focalnet_tiny_srf",
        focal_windows=[11, 9, 9, 7],
        drop_path_rate=0.3,
        init_cfg=dict(type="Pretrained", checkpoint="focalnet_tiny_srf"),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)

optim_wrapper = dict(
    optimizer=dict(lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={"norm": dict(decay_mult=0.0)}),
)
