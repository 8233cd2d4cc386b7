"""Mask2Former with FocalNet-S (lrf) on ADE20K, 512x512, 160k iterations of 16 images.

    tools/dist_train.sh configs/mmseg/mask2former_focalnet_small_lrf_160k_ade20k_512x512.py 8

Inferred: mmsegmentation's recipe for Swin-S. Nothing was published for this size. 69.49 M parameters.
"""

_base_ = ["./_base_/mask2former_focalnet_160k_ade20k_512x512.py"]

variant = "focalnet_small_lrf"
model = dict(backbone=dict(variant=variant, init_cfg=dict(checkpoint=variant)))
