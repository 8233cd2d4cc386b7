"""Mask R-CNN with Focal Transformer-S on COCO 2017, 1x schedule (12 epochs): a twin of FocalNet-S's.

    tools/dist_train.sh configs/mmdet/mask_rcnn_focal_transformer_small_1x.py 8 --amp

Published: box AP 47.4, mask AP 42.8; 71.2 M parameters, 401 GFLOPs at 800x1280.
"""

_base_ = ["./_base_/mask_rcnn_twin_1x.py"]

model = dict(
    backbone=dict(_delete_=True, **_base_.focal_transformer_small, drop_path_rate=0.2),
    neck=dict(in_channels=_base_.widths_small),
)
