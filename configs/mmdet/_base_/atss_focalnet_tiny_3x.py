"""ATSS with FocalNet-T (srf), 3x schedule, on the backbone's maps at strides 8, 16 and 32."""

_base_ = ["mmdet::atss/atss_r50_fpn_1x_coco.py", "./recipe.py"]

model = dict(
    backbone=dict(_delete_=True, **_base_.focalnet, focal_windows=[11, 9, 9, 7], out_indices=(1, 2, 3)),
    neck=dict(in_channels=[192, 384, 768], start_level=0),
)
train_dataloader = dict(dataset=dict(pipeline=_base_.box_pipeline))
train_cfg = dict(max_epochs=36)
param_scheduler = _base_.schedule_3x
optim_wrapper = dict(optimizer=dict(_delete_=True, **_base_.adamw), paramwise_cfg=_base_.no_decay_of_norms)
