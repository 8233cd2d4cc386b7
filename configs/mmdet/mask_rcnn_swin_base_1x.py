"""Mask R-CNN with Swin-B on COCO 2017, 1x schedule (12 epochs): a twin of FocalNet-B's.

    tools/dist_train.sh configs/mmdet/mask_rcnn_swin_base_1x.py 8 --amp

Published: box AP 46.9, mask AP 42.3; 107.1 M parameters, 496 GFLOPs at 800x1280.
"""

_base_ = ["./_base_/mask_rcnn_twin_1x.py"]

model = dict(
    backbone=dict(_delete_=True, **_base_.swin_base, drop_path_rate=0.3),
    neck=dict(in_channels=_base_.widths_base),
)
