"""Mask2Former with FocalNet-T (lrf) on COCO panoptic, 50 epochs.

    tools/dist_train.sh configs/mmdet/mask2former_focalnet_tiny_lrf_coco-panoptic.py 8

Inferred: mmdetection's recipe for Swin-T. Nothing was published for this size. 47.79 M parameters.
"""

_base_ = ["./_base_/mask2former_focalnet_coco-panoptic.py"]
