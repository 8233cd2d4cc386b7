"""DINO, 4 scales, with FocalNet-L (4 focal levels) on COCO 2017, 12 epochs.

    tools/dist_train.sh configs/mmdet/dino-4scale_focalnet_large_fl4_12e_coco.py 8

Source: FocalNet-DINO. Inferred: the combination; that release has 4 scales with 3 focal levels, and 4 levels with 5
scales. 228.53 M parameters.
"""

_base_ = ["./_base_/dino_focalnet.py"]

variant = "focalnet_large_fl4"
model = dict(backbone=dict(variant=variant, init_cfg=dict(checkpoint=variant)))
