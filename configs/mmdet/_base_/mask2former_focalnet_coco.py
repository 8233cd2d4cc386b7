"""Mask2Former with FocalNet-T (lrf) on COCO instances, 50 epochs of 16 images: what all sizes have in common.

The paper has no Mask2Former for instances. This is mmdetection's recipe for Swin, with the backbone
replaced. Of Mask2Former's own it lacks mixed precision (tools/train.py --amp), and pads images after normalisation.

Data: https://cocodataset.org, unpacked into data/coco (train2017, val2017 and annotations).
"""

_base_ = ["mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py", "./backbone_keys.py"]
custom_imports = dict(imports=["focalnet_backbone.openmmlab"], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type="FocalNet",
        variant="focalnet_tiny_lrf",
        drop_path_rate=0.3,
        init_cfg=dict(type="Pretrained", checkpoint="focalnet_tiny_lrf"),
    ),
    panoptic_head=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.backbone_keys))
