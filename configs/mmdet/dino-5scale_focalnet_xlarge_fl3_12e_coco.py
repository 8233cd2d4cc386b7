"""DINO, 5 scales, with FocalNet-XL (3 focal levels) on COCO 2017, 12 epochs.

    tools/dist_train.sh configs/mmdet/dino-5scale_focalnet_xlarge_fl3_12e_coco.py 8

Source: the backbone's knobs from models/dino/focal.py of FocalNet-DINO. Inferred: all else, taken from its
FocalNet-L, as no config of this size was published. 388.59 M parameters.
"""

_base_ = ["./_base_/dino_focalnet_5scale.py"]

variant = "focalnet_xlarge_fl3"
model = dict(
    backbone=dict(variant=variant, init_cfg=dict(checkpoint=variant)),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
