"""Mask R-CNN with Swin-T on COCO 2017, 1x schedule (12 epochs): a twin of FocalNet-T's.

    tools/dist_train.sh configs/mmdet/mask_rcnn_swin_tiny_1x.py 8 --amp

Published: box AP 43.7, mask AP 39.8; 47.8 M parameters, 267 GFLOPs at 800x1280.
"""

_base_ = ["./_base_/mask_rcnn_twin_1x.py"]

model = dict(
    backbone=dict(_delete_=True, **_base_.swin_tiny, drop_path_rate=0.1),
    neck=dict(in_channels=_base_.widths_tiny),
)
