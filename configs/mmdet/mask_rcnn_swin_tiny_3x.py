"""Mask R-CNN with Swin-T on COCO 2017, 3x schedule (36 epochs): a twin of FocalNet-T's.

    tools/dist_train.sh configs/mmdet/mask_rcnn_swin_tiny_3x.py 8 --amp

Published: box AP 46.0, mask AP 41.6; 47.8 M parameters, 267 GFLOPs at 800x1280.
"""

_base_ = ["./_base_/mask_rcnn_twin_3x.py"]

model = dict(
    backbone=dict(_delete_=True, **_base_.swin_tiny, drop_path_rate=0.3),
    neck=dict(in_channels=_base_.widths_tiny),
)
