"""DINO, 4 scales, with FocalNet-S (lrf) on COCO 2017, 12 epochs.

    tools/dist_train.sh configs/mmdet/dino-4scale_focalnet_small_lrf_12e_coco.py 8

Source: projects/dino/configs of detrex, whose recipe it is. No AP and no checkpoint of it were published. 70.25 M
parameters.
"""

_base_ = ["./_base_/dino_focalnet.py", "./_base_/detrex.py"]

variant = "focalnet_small_lrf"
model = dict(
    backbone=dict(variant=variant, drop_path_rate=0.1, init_cfg=dict(checkpoint=variant), **_base_.detrex_backbone),
    neck=dict(in_channels=[192, 384, 768]),
    **_base_.detrex_model,
)
train_dataloader = _base_.detrex_data
optim_wrapper = _base_.detrex_optimizer
