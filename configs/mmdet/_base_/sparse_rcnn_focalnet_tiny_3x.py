"""Sparse R-CNN of 300 proposals with FocalNet-T (srf), 3x schedule; its gradients are clipped as mmdetection does."""

_base_ = ["mmdet::sparse_rcnn/sparse-rcnn_r50_fpn_300-proposals_crop-ms-480-800-3x_coco.py", "./recipe.py"]

model = dict(
    backbone=dict(_delete_=True, **_base_.focalnet, focal_windows=[11, 9, 9, 7]),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
train_dataloader = dict(dataset=dict(pipeline=_base_.box_pipeline))
train_cfg = dict(max_epochs=36)
param_scheduler = _base_.schedule_3x
optim_wrapper = dict(optimizer=dict(_delete_=True, **_base_.adamw), paramwise_cfg=_base_.no_decay_of_norms)
