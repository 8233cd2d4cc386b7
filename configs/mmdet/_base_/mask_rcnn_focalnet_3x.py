"""Mask R-CNN with FocalNet-T (srf), 3x schedule: what the twelve models have in common."""

_base_ = ["mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", "./recipe.py"]

model = dict(
    backbone=dict(_delete_=True, **_base_.focalnet, focal_windows=[9, 9, 9, 9]),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
train_dataloader = dict(dataset=dict(pipeline=_base_.mask_pipeline))
train_cfg = dict(max_epochs=36)
param_scheduler = _base_.schedule_3x
optim_wrapper = dict(optimizer=dict(_delete_=True, **_base_.adamw), paramwise_cfg=_base_.no_decay_of_norms)
