"""DINO, 4 scales, with FocalNet-L (3 focal levels) on COCO 2017, 12 epochs.

    tools/dist_train.sh configs/mmdet/dino-4scale_focalnet_large_fl3_12e_coco.py 8

Source: config/DINO/DINO_4scale_focalnet_large_fl3.py of FocalNet-DINO. No AP and no checkpoint of it were published.
228.35 M parameters.
"""

_base_ = ["./_base_/dino_focalnet.py"]
