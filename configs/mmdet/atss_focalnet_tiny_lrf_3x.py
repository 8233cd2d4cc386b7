"""ATSS with FocalNet-T (lrf) on COCO 2017, 3x schedule (36 epochs).

    tools/dist_train.sh configs/mmdet/atss_focalnet_tiny_lrf_3x.py 8 --amp

Published: box AP 49.6; 37.2 M parameters, 220 GFLOPs.
"""

_base_ = ["./_base_/atss_focalnet_tiny_3x.py"]

variant = "focalnet_tiny_lrf"
model = dict(backbone=dict(variant=variant, init_cfg=dict(checkpoint=variant)))
