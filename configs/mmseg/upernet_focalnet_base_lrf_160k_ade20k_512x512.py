"""UPerNet with FocalNet-B (lrf) on ADE20K, 512x512, 160k iterations of 16 images.

    tools/dist_train.sh configs/mmseg/upernet_focalnet_base_lrf_160k_ade20k_512x512.py 8

Published mIoU: 50.5 (single scale), 51.4 (multi-scale and flip: tools/test.py --tta).
125.73 M parameters; 1190.59 G multiply-accumulates at 512x2048.
"""

_base_ = ["./_base_/upernet_focalnet_160k_ade20k_512x512.py"]

variant = "focalnet_base_lrf"
model = dict(
    backbone=dict(variant=variant, init_cfg=dict(checkpoint=variant)),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
