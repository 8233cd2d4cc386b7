"""Mask2Former with FocalNet-B (lrf) on ADE20K, 640x640, 160k iterations of 16 images.

    tools/dist_train.sh configs/mmseg/mask2former_focalnet_base_lrf_160k_ade20k_640x640.py 8

Inferred: mmsegmentation's recipe for Swin-B. Nothing was published for this size. 107.77 M parameters.
"""

_base_ = ["./_base_/mask2former_focalnet_160k_ade20k_640x640.py"]
