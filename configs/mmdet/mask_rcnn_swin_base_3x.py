"""Mask R-CNN with Swin-B on COCO 2017, 3x schedule (36 epochs): a twin of FocalNet-B's.

    tools/dist_train.sh configs/mmdet/mask_rcnn_swin_base_3x.py 8 --amp

Published: box AP 48.5; 107.1 M parameters, 496 GFLOPs at 800x1280.
"""

_base_ = ["./_base_/mask_rcnn_twin_3x.py"]

model = dict(
    backbone=dict(_delete_=True, **_base_.swin_base, drop_path_rate=0.5),
    neck=dict(in_channels=_base_.widths_base),
)
