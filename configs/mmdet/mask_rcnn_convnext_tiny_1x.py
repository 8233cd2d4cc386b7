"""Mask R-CNN with ConvNeXt-T on COCO 2017, 1x schedule (12 epochs): a twin of FocalNet-T's.

    tools/dist_train.sh configs/mmdet/mask_rcnn_convnext_tiny_1x.py 8 --amp

No results are published.
"""

_base_ = ["./_base_/mask_rcnn_twin_1x.py"]

model = dict(
    backbone=dict(_delete_=True, **_base_.convnext_tiny, drop_path_rate=0.1),
    neck=dict(in_channels=_base_.widths_tiny),
)
