"""DINO, 5 scales, with FocalNet-L (4 focal levels) on COCO 2017, 36 epochs, as detrex trains it.

    tools/dist_train.sh configs/mmdet/dino-5scale_focalnet_large_fl4_detrex_36e_coco.py 8

Source: projects/dino/configs of detrex. No AP and no checkpoint of it were published. 228.88 M parameters.
"""

_base_ = ["./dino-5scale_focalnet_large_fl4_detrex_12e_coco.py"]

model = dict(backbone=dict(drop_path_rate=0.4))
train_cfg = dict(max_epochs=36)
param_scheduler = [_base_.detrex_36e]
