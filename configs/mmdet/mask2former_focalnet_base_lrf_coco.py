"""Mask2Former with FocalNet-B (lrf) on COCO instances, 50 epochs.

    tools/dist_train.sh configs/mmdet/mask2former_focalnet_base_lrf_coco.py 8

Inferred: mmdetection's recipe for Swin-B on COCO panoptic. Nothing was published for this size. 107.75 M parameters.
"""

_base_ = ["./_base_/mask2former_focalnet_coco.py"]

variant = "focalnet_base_lrf"
model = dict(
    backbone=dict(variant=variant, init_cfg=dict(checkpoint=variant)),
    panoptic_head=dict(in_channels=[128, 256, 512, 1024]),
)
