"""Mask R-CNN with Focal Transformer-T on COCO 2017, 1x schedule (12 epochs): a twin of FocalNet-T's.

    tools/dist_train.sh configs/mmdet/mask_rcnn_focal_transformer_tiny_1x.py 8 --amp

Published: box AP 44.8, mask AP 41.0; 48.8 M parameters, 291 GFLOPs at 800x1280.
"""

_base_ = ["./_base_/mask_rcnn_twin_1x.py"]

model = dict(
    backbone=dict(_delete_=True, **_base_.focal_transformer_tiny, drop_path_rate=0.1),
    neck=dict(in_channels=_base_.widths_tiny),
)
