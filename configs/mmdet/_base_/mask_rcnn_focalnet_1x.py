"""Mask R-CNN with FocalNet-T (srf), 1x schedule (12 epochs)."""

_base_ = ["./mask_rcnn_focalnet_3x.py"]

model = dict(backbone=dict(drop_path_rate=0.1))
train_cfg = dict(max_epochs=12)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=12, milestones=[9, 11], gamma=0.1),
]
