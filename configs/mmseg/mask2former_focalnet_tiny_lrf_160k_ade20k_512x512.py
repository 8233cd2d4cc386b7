"""Mask2Former with FocalNet-T (lrf) on ADE20K, 512x512, 160k iterations of 16 images.

    tools/dist_train.sh configs/mmseg/mask2former_focalnet_tiny_lrf_160k_ade20k_512x512.py 8

Inferred: mmsegmentation's recipe for Swin-T. Nothing was published for this size. 47.80 M parameters.
"""

_base_ = ["./_base_/mask2former_focalnet_160k_ade20k_512x512.py"]
