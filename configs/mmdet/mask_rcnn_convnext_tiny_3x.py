"""Mask R-CNN with ConvNeXt-T on COCO 2017, 3x schedule (36 epochs): a twin of FocalNet-T's.

    tools/dist_train.sh configs/mmdet/mask_rcnn_convnext_tiny_3x.py 8 --amp

Published, by a recipe of its own: box AP 46.2, mask AP 41.7; 48 M parameters, 262 GFLOPs at 800x1280.
"""

_base_ = ["./_base_/mask_rcnn_twin_3x.py"]

model = dict(
    backbone=dict(_delete_=True, **_base_.convnext_tiny, drop_path_rate=0.3),
    neck=dict(in_channels=_base_.widths_tiny),
)
