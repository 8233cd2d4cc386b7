"""Mask2Former with FocalNet-L (4 focal levels) on COCO instances, 100 epochs.

    tools/dist_train.sh configs/mmdet/mask2former_focalnet_large_fl4_coco.py 16

Nothing was published for instances. Inferred: the recipe, which is that of Swin-L on COCO panoptic, and 4 focal
levels. 226.07 M parameters.
"""

_base_ = ["./_base_/mask2former_focalnet_coco.py", "./_base_/mask2former_large.py"]

model = _base_.large
train_dataloader = _base_.large_data
param_scheduler = _base_.large_schedule
train_cfg = _base_.large_loop
