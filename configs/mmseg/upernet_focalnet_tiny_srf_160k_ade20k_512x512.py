"""UPerNet with FocalNet-T (srf) on ADE20K, 512x512, 160k iterations of 16 images.

    tools/dist_train.sh configs/mmseg/upernet_focalnet_tiny_srf_160k_ade20k_512x512.py 8

Published mIoU: 46.5 (single scale), 47.2 (multi-scale and flip: tools/test.py --tta).
60.82 M parameters; 943.67 G multiply-accumulates at 512x2048.
"""

_base_ = ["./_base_/upernet_focalnet_160k_ade20k_512x512.py"]
