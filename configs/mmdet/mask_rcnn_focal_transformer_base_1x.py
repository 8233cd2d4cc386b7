"""Mask R-CNN with Focal Transformer-B on COCO 2017, 1x schedule (12 epochs): a twin of FocalNet-B's.

    tools/dist_train.sh configs/mmdet/mask_rcnn_focal_transformer_base_1x.py 8 --amp

Published: box AP 47.8, mask AP 43.2; 110.0 M parameters, 533 GFLOPs at 800x1280.
"""

_base_ = ["./_base_/mask_rcnn_twin_1x.py"]

model = dict(
    backbone=dict(_delete_=True, **_base_.focal_transformer_base, drop_path_rate=0.3),
    neck=dict(in_channels=_base_.widths_base),
)
