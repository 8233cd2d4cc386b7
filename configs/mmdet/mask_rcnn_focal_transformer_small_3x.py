"""Mask R-CNN with Focal Transformer-S on COCO 2017, 3x schedule (36 epochs): a twin of FocalNet-S's.

    tools/dist_train.sh configs/mmdet/mask_rcnn_focal_transformer_small_3x.py 8 --amp

Published: box AP 48.8, mask AP 43.8; 71.2 M parameters, 401 GFLOPs at 800x1280.
"""

_base_ = ["./_base_/mask_rcnn_twin_3x.py"]

model = dict(
    backbone=dict(_delete_=True, **_base_.focal_transformer_small, drop_path_rate=0.5),
    neck=dict(in_channels=_base_.widths_small),
)
