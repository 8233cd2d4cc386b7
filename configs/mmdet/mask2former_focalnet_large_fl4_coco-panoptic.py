"""Mask2Former with FocalNet-L (4 focal levels) on COCO panoptic, 100 epochs.

    tools/dist_train.sh configs/mmdet/mask2former_focalnet_large_fl4_coco-panoptic.py 16

Published, for FocalNet-L with Mask2Former: PQ 57.9; no config, no checkpoint. Inferred: the recipe, which is that of
Swin-L (PQ 57.8), and 4 focal levels, as X-Decoder's FocalNet-L has. 226.08 M parameters.
"""

_base_ = ["./_base_/mask2former_focalnet_coco-panoptic.py", "./_base_/mask2former_large.py"]

model = _base_.large
train_dataloader = _base_.large_data
param_scheduler = _base_.large_schedule
train_cfg = _base_.large_loop
