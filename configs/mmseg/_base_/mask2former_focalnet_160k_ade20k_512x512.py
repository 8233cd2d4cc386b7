"""Mask2Former with FocalNet-T (lrf) on ADE20K at 512x512 for 160k iterations: what tiny and small have in common.

It is mmsegmentation's recipe for Swin, with the backbone replaced. Of Mask2Former's own it lacks mixed precision
(tools/train.py --amp), pads images after normalisation, and crops again where one class fills 3/4 of a crop.

Data: https://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip, unpacked into data/ade.
"""

_base_ = [
    "mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py",
    "../../mmdet/_base_/backbone_keys.py",
]
custom_imports = dict(imports=["focalnet_backbone.openmmlab", "mmdet.models"], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type="FocalNet",
        variant="focalnet_tiny_lrf",
        drop_path_rate=0.3,
        init_cfg=dict(type="Pretrained", checkpoint="focalnet_tiny_lrf"),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.backbone_keys))
