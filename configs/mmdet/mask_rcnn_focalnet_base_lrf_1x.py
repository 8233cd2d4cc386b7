"""Mask R-CNN with FocalNet-B (lrf) on COCO 2017, 1x schedule (12 epochs).

    tools/dist_train.sh configs/mmdet/mask_rcnn_focalnet_base_lrf_1x.py 8 --amp

Published: box AP 49.0, mask AP 43.5; 111.4 M parameters, 507 GFLOPs at 800x1280.
"""

_base_ = ["./_base_/mask_rcnn_focalnet_1x.py"]

variant = "focalnet_base_lrf"
model = dict(
    backbone=dict(variant=variant, drop_path_rate=0.3, init_cfg=dict(checkpoint=variant)),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
