"""DINO, 4 scales, with FocalNet-L (3 focal levels) on COCO 2017, 36 epochs, as detrex trains it.

    tools/dist_train.sh configs/mmdet/dino-4scale_focalnet_large_fl3_detrex_36e_coco.py 8

Source: projects/dino/configs of detrex. Published: box AP 58.3. 228.35 M parameters. Its checkpoint:
https://github.com/IDEA-Research/detrex-storage/releases/download/v0.4.0/dino_focal_large_3level_4scale_36ep.pth
"""

_base_ = ["./dino-4scale_focalnet_large_fl3_detrex_12e_coco.py"]

train_cfg = dict(max_epochs=36)
param_scheduler = [_base_.detrex_36e]
