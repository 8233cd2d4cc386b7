"""UPerNet with FocalNet-T (lrf) on ADE20K, 512x512, 160k iterations of 16 images.

    tools/dist_train.sh configs/mmseg/upernet_focalnet_tiny_lrf_160k_ade20k_512x512.py 8

Published mIoU: 46.8 (single scale), 47.8 (multi-scale and flip: tools/test.py --tta).
61.57 M parameters; 948.75 G multiply-accumulates at 512x2048.
"""

_base_ = ["./_base_/upernet_focalnet_160k_ade20k_512x512.py"]

variant = "focalnet_tiny_lrf"
model = dict(backbone=dict(variant=variant, init_cfg=dict(checkpoint=variant)))
