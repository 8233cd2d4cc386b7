"""Mask R-CNN with FocalNet-B (lrf) on COCO 2017, 3x schedule (36 epochs).

    tools/dist_train.sh configs/mmdet/mask_rcnn_focalnet_base_lrf_3x.py 8 --amp

Published: box AP 49.8, mask AP 44.1; 111.4 M parameters, 507 GFLOPs at 800x1280.
"""

_base_ = ["./_base_/mask_rcnn_focalnet_3x.py"]

variant = "focalnet_base_lrf"
model = dict(
    backbone=dict(variant=variant, drop_path_rate=0.5, init_cfg=dict(checkpoint=variant)),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
