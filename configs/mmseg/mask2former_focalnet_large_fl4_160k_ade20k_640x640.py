"""Mask2Former with FocalNet-L (4 focal levels) on ADE20K, 640x640, 160k iterations of 16 images.

    tools/dist_train.sh configs/mmseg/mask2former_focalnet_large_fl4_160k_ade20k_640x640.py 8

Published, for FocalNet-L with Mask2Former: mIoU 58.5, probably at several scales (tools/test.py --tta); no config, no
checkpoint. Inferred: the recipe, which is that of Swin-L (mIoU 56.1, at several scales 57.3), and 4 focal levels, as
X-Decoder's FocalNet-L has. 226.03 M parameters.
"""

_base_ = ["./_base_/mask2former_focalnet_160k_ade20k_640x640.py"]

variant = "focalnet_large_fl4"
model = dict(
    backbone=dict(variant=variant, init_cfg=dict(checkpoint=variant)),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
)
