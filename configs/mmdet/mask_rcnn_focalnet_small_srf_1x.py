"""Mask R-CNN with FocalNet-S (srf) on COCO 2017, 1x schedule (12 epochs).

    tools/dist_train.sh configs/mmdet/mask_rcnn_focalnet_small_srf_1x.py 8 --amp

Published: box AP 48.0, mask AP 42.7; 70.8 M parameters, 356 GFLOPs at 800x1280.
"""

_base_ = ["./_base_/mask_rcnn_focalnet_1x.py"]

variant = "focalnet_small_srf"
model = dict(backbone=dict(variant=variant, drop_path_rate=0.2, init_cfg=dict(checkpoint=variant)))
