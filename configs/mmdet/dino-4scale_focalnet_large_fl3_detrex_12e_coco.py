"""DINO, 4 scales, with FocalNet-L (3 focal levels) on COCO 2017, 12 epochs, as detrex trains it.

    tools/dist_train.sh configs/mmdet/dino-4scale_focalnet_large_fl3_detrex_12e_coco.py 8

Source: projects/dino/configs of detrex. Published: box AP 57.5. 228.35 M parameters. Its checkpoint:
https://github.com/IDEA-Research/detrex-storage/releases/download/v0.2.1/dino_focal_large_lrf_384_4scale_12ep.pth
"""

_base_ = ["./_base_/dino_focalnet.py", "./_base_/detrex.py"]

model = dict(backbone=_base_.detrex_backbone, **_base_.detrex_model)
train_dataloader = _base_.detrex_data
optim_wrapper = _base_.detrex_optimizer
