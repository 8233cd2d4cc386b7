"""UPerNet with FocalNet-S (srf) on ADE20K, 512x512, 160k iterations of 16 images.

    tools/dist_train.sh configs/mmseg/upernet_focalnet_small_srf_160k_ade20k_512x512.py 8

Published mIoU: 49.3 (single scale), 50.1 (multi-scale and flip: tools/test.py --tta).
83.06 M parameters; 1034.7 G multiply-accumulates at 512x2048.
"""

_base_ = ["./_base_/upernet_focalnet_160k_ade20k_512x512.py"]

variant = "focalnet_small_srf"
model = dict(backbone=dict(variant=variant, init_cfg=dict(checkpoint=variant)))
