"""Mask R-CNN with Focal Transformer-T on COCO 2017, 3x schedule (36 epochs): a twin of FocalNet-T's.

    tools/dist_train.sh configs/mmdet/mask_rcnn_focal_transformer_tiny_3x.py 8 --amp

Published: box AP 47.2, mask AP 42.7; 48.8 M parameters, 291 GFLOPs at 800x1280.
"""

_base_ = ["./_base_/mask_rcnn_twin_3x.py"]

model = dict(
    backbone=dict(_delete_=True, **_base_.focal_transformer_tiny, drop_path_rate=0.3),
    neck=dict(in_channels=_base_.widths_tiny),
)
