"""Mask R-CNN with FocalNet-T (lrf) on COCO 2017, 3x schedule (36 epochs).

    tools/dist_train.sh configs/mmdet/mask_rcnn_focalnet_tiny_lrf_3x.py 8 --amp

Published: box AP 48.0, mask AP 42.9; 48.8 M parameters, 268 GFLOPs at 800x1280.
"""

_base_ = ["./_base_/mask_rcnn_focalnet_3x.py"]

variant = "focalnet_tiny_lrf"
model = dict(backbone=dict(variant=variant, init_cfg=dict(checkpoint=variant)))
