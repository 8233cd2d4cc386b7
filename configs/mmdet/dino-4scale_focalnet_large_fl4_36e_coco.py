"""DINO, 4 scales, with FocalNet-L (4 focal levels) on COCO 2017, 36 epochs.

    tools/dist_train.sh configs/mmdet/dino-4scale_focalnet_large_fl4_36e_coco.py 8

Source: FocalNet-DINO. Inferred: the combination of 4 scales with 4 focal levels, and the 36 epochs. 228.53 M
parameters.
"""

_base_ = ["./dino-4scale_focalnet_large_fl4_12e_coco.py"]

train_cfg = dict(max_epochs=36)
param_scheduler = [dict(type="MultiStepLR", begin=0, end=36, by_epoch=True, milestones=[33], gamma=0.1)]
