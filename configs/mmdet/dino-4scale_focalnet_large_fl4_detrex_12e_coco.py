"""DINO, 4 scales, with FocalNet-L (4 focal levels) on COCO 2017, 12 epochs, as detrex trains it.

    tools/dist_train.sh configs/mmdet/dino-4scale_focalnet_large_fl4_detrex_12e_coco.py 8

Source: projects/dino/configs of detrex. Published: box AP 58.0. 228.53 M parameters. Its checkpoint:
https://github.com/IDEA-Research/detrex-storage/releases/download/v0.2.1/dino_focal_large_lrf_384_fl4_4scale_12ep.pth
"""

_base_ = ["./_base_/dino_focalnet.py", "./_base_/detrex.py"]

variant = "focalnet_large_fl4"
model = dict(
    backbone=dict(variant=variant, init_cfg=dict(checkpoint=variant), **_base_.detrex_backbone), **_base_.detrex_model
)
train_dataloader = _base_.detrex_data
optim_wrapper = _base_.detrex_optimizer
