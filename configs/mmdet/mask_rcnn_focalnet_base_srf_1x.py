"""Mask R-CNN with FocalNet-B (srf) on COCO 2017, 1x schedule (12 epochs).

    tools/dist_train.sh configs/mmdet/mask_rcnn_focalnet_base_srf_1x.py 8 --amp

Published: box AP 48.8, mask AP 43.3; 109.4 M parameters, 496 GFLOPs at 800x1280.
"""

_base_ = ["./_base_/mask_rcnn_focalnet_1x.py"]

variant = "focalnet_base_srf"
model = dict(
    backbone=dict(variant=variant, drop_path_rate=0.3, init_cfg=dict(checkpoint=variant)),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
