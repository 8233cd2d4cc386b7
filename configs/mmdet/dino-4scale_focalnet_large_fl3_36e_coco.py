"""DINO, 4 scales, with FocalNet-L (3 focal levels) on COCO 2017, 36 epochs.

    tools/dist_train.sh configs/mmdet/dino-4scale_focalnet_large_fl3_36e_coco.py 8

Source: FocalNet-DINO for 12 epochs. Inferred: 36 epochs with the learning rate's drop after 33, as PaddleDetection
has them for its conversion of the 5-scale model. 228.35 M parameters.
"""

_base_ = ["./dino-4scale_focalnet_large_fl3_12e_coco.py"]

train_cfg = dict(max_epochs=36)
param_scheduler = [dict(type="MultiStepLR", begin=0, end=36, by_epoch=True, milestones=[33], gamma=0.1)]
