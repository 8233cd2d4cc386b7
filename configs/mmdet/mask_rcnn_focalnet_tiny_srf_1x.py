"""Mask R-CNN with FocalNet-T (srf) on COCO 2017, 1x schedule (12 epochs).

    tools/dist_train.sh configs/mmdet/mask_rcnn_focalnet_tiny_srf_1x.py 8 --amp

Published: box AP 45.9, mask AP 41.3; 48.6 M parameters, 267 GFLOPs at 800x1280.
"""

_base_ = ["./_base_/mask_rcnn_focalnet_1x.py"]

variant = "focalnet_tiny_srf"
model = dict(backbone=dict(variant=variant, init_cfg=dict(checkpoint=variant)))
