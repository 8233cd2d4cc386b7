"""DINO, 5 scales, with FocalNet-H (3 focal levels) on COCO 2017, 12 epochs.

    tools/dist_train.sh configs/mmdet/dino-5scale_focalnet_huge_fl3_12e_coco.py 8

Source: the backbone's knobs from models/dino/focal.py of FocalNet-DINO. Inferred: all else, taken from its
FocalNet-L, as no config of this size was published. 710.45 M parameters.

Published for FocalNet-H with DINO, which of the two is not said: box AP 64.3 on val2017, 64.4 on test-dev; no
checkpoint.
"""

_base_ = ["./_base_/dino_focalnet_5scale.py"]

variant = "focalnet_huge_fl3"
model = dict(
    backbone=dict(variant=variant, init_cfg=dict(checkpoint=variant)),
    neck=dict(in_channels=[352, 704, 1408, 2816]),
)
