"""Cascade Mask R-CNN with FocalNet-T (lrf) on COCO 2017, 3x schedule (36 epochs).

    tools/dist_train.sh configs/mmdet/cascade_mask_rcnn_focalnet_tiny_lrf_3x.py 8 --amp

Published: box AP 51.5; 87.1 M parameters, 751 GFLOPs.
"""

_base_ = ["./_base_/cascade_mask_rcnn_focalnet_tiny_3x.py"]

variant = "focalnet_tiny_lrf"
model = dict(backbone=dict(variant=variant, init_cfg=dict(checkpoint=variant)))
