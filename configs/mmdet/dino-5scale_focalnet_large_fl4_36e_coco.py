"""DINO, 5 scales, with FocalNet-L (4 focal levels) on COCO 2017, 36 epochs.

    tools/dist_train.sh configs/mmdet/dino-5scale_focalnet_large_fl4_36e_coco.py 8

Source: FocalNet-DINO for 12 epochs. Inferred: 36 epochs with the learning rate's drop after 33, as PaddleDetection
has them for its conversion of this model. 228.88 M parameters.
"""

_base_ = ["./dino-5scale_focalnet_large_fl4_12e_coco.py"]

train_cfg = dict(max_epochs=36)
param_scheduler = [dict(type="MultiStepLR", begin=0, end=36, by_epoch=True, milestones=[33], gamma=0.1)]
