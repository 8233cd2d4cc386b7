"""Mask R-CNN with FocalNet-T (lrf) on COCO 2017, 1x schedule (12 epochs).

    tools/dist_train.sh configs/mmdet/mask_rcnn_focalnet_tiny_lrf_1x.py 8 --amp

Published: box AP 46.1, mask AP 41.5; 48.8 M parameters, 268 GFLOPs at 800x1280.
"""

_base_ = ["./_base_/mask_rcnn_focalnet_1x.py"]

variant = "focalnet_tiny_lrf"
model = dict(backbone=dict(variant=variant, init_cfg=dict(checkpoint=variant)))
