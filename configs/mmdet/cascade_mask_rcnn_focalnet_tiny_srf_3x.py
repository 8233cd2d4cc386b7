"""Cascade Mask R-CNN with FocalNet-T (srf) on COCO 2017, 3x schedule (36 epochs).

    tools/dist_train.sh configs/mmdet/cascade_mask_rcnn_focalnet_tiny_srf_3x.py 8 --amp

Published is the result of large kernels (lrf) alone.
"""

_base_ = ["./_base_/cascade_mask_rcnn_focalnet_tiny_3x.py"]

variant = "focalnet_tiny_srf"
model = dict(backbone=dict(variant=variant, init_cfg=dict(checkpoint=variant)))
