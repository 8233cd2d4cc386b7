"""DINO, 5 scales, with FocalNet-L (4 focal levels) on COCO 2017, 12 epochs.

    tools/dist_train.sh configs/mmdet/dino-5scale_focalnet_large_fl4_12e_coco.py 8

Source: config/DINO/DINO_5scale_focalnet_large_fl4.py of FocalNet-DINO. 228.88 M parameters.

Published: box AP 63.5 after Objects365 and COCO, without test-time augmentation (at 1200x2000: see the `hres`
config); no number without Objects365. Both checkpoints load into this model:
    dino-5scale_focalnet_large_fl4_o365-coco  https://huggingface.co/microsoft/focalnet-large-fl4-dino-o365-cocoft
    dino-5scale_focalnet_large_fl4_o365       https://huggingface.co/microsoft/focalnet-large-fl4-dino-o365
"""

_base_ = ["./_base_/dino_focalnet_5scale.py"]
