"""UPerNet with FocalNet-S (lrf) on ADE20K, 512x512, 160k iterations of 16 images.

    tools/dist_train.sh configs/mmseg/upernet_focalnet_small_lrf_160k_ade20k_512x512.py 8

Published mIoU: 49.1 (single scale), 50.1 (multi-scale and flip: tools/test.py --tta).
84.59 M parameters; 1042.99 G multiply-accumulates at 512x2048.
"""

_base_ = ["./_base_/upernet_focalnet_160k_ade20k_512x512.py"]

variant = "focalnet_small_lrf"
model = dict(backbone=dict(variant=variant, init_cfg=dict(checkpoint=variant)))
