"""DINO, 4 scales, with FocalNet-L (4 focal levels) on COCO 2017, 36 epochs, as detrex trains it.

    tools/dist_train.sh configs/mmdet/dino-4scale_focalnet_large_fl4_detrex_36e_coco.py 8

Source: projects/dino/configs of detrex for 12 epochs. Inferred: its schedule of 36 epochs for this model. 228.53 M
parameters.
"""

_base_ = ["./dino-4scale_focalnet_large_fl4_detrex_12e_coco.py"]

train_cfg = dict(max_epochs=36)
param_scheduler = [_base_.detrex_36e]
