"""Mask R-CNN with Swin-S on COCO 2017, 1x schedule (12 epochs): a twin of FocalNet-S's.

    tools/dist_train.sh configs/mmdet/mask_rcnn_swin_small_1x.py 8 --amp

Published: 69.1 M parameters, 359 GFLOPs at 800x1280; of this schedule, no result by its authors.
"""

_base_ = ["./_base_/mask_rcnn_twin_1x.py"]

model = dict(
    backbone=dict(_delete_=True, **_base_.swin_small, drop_path_rate=0.2),
    neck=dict(in_channels=_base_.widths_small),
)
