"""Mask2Former with FocalNet-S (lrf) on COCO panoptic, 50 epochs.

    tools/dist_train.sh configs/mmdet/mask2former_focalnet_small_lrf_coco-panoptic.py 8

Inferred: mmdetection's recipe for Swin-S. Nothing was published for this size. 69.49 M parameters.
"""

_base_ = ["./_base_/mask2former_focalnet_coco-panoptic.py"]

variant = "focalnet_small_lrf"
model = dict(backbone=dict(variant=variant, init_cfg=dict(checkpoint=variant)))
