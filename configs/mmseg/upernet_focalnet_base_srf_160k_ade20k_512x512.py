"""UPerNet with FocalNet-B (srf) on ADE20K, 512x512, 160k iterations of 16 images.

    tools/dist_train.sh configs/mmseg/upernet_focalnet_base_srf_160k_ade20k_512x512.py 8

Published mIoU: 50.2 (single scale), 51.1 (multi-scale and flip: tools/test.py --tta).
123.68 M parameters; 1179.54 G multiply-accumulates at 512x2048.
"""

_base_ = ["./_base_/upernet_focalnet_160k_ade20k_512x512.py"]

variant = "focalnet_base_srf"
model = dict(
    backbone=dict(variant=variant, init_cfg=dict(checkpoint=variant)),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
