"""Mask R-CNN with FocalNet-S (srf) on COCO 2017, 3x schedule (36 epochs).

    tools/dist_train.sh configs/mmdet/mask_rcnn_focalnet_small_srf_3x.py 8 --amp

Published: box AP 48.9, mask AP 43.6; 70.8 M parameters, 356 GFLOPs at 800x1280.
"""

_base_ = ["./_base_/mask_rcnn_focalnet_3x.py"]

variant = "focalnet_small_srf"
model = dict(backbone=dict(variant=variant, drop_path_rate=0.5, init_cfg=dict(checkpoint=variant)))
