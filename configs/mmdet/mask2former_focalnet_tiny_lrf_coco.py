"""Mask2Former with FocalNet-T (lrf) on COCO instances, 50 epochs.

    tools/dist_train.sh configs/mmdet/mask2former_focalnet_tiny_lrf_coco.py 8

Inferred: mmdetection's recipe for Swin-T. Nothing was published for this size. 47.78 M parameters.
"""

_base_ = ["./_base_/mask2former_focalnet_coco.py"]
