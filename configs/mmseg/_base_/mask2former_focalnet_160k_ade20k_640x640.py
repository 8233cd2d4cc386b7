"""Mask2Former with FocalNet-B (lrf) on ADE20K at 640x640 for 160k iterations: what base and large have in common.

It is mmsegmentation's recipe for Swin, with the backbone replaced. Of Mask2Former's own it lacks mixed precision
(tools/train.py --amp), pads images after normalisation, and crops again where one class fills 3/4 of a crop.

Data: https://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip, unpacked into data/ade.
"""

_base_ = [
    "mmseg::mask2former/mask2former_swin-b-in22k-384x384-pre_8xb2-160k_ade20k-640x640.py",
    "../../mmdet/_base_/backbone_keys.py",
]
custom_imports = dict(imports=["focalnet_backbone.openmmlab", "mmdet.models"], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type="FocalNet",
        variant="focalnet_base_lrf",
        drop_path_rate=0.3,
        init_cfg=dict(type="Pretrained", checkpoint="focalnet_base_lrf"),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
)
no_decay = dict(decay_mult=0.0)
custom_keys = dict(
    _delete_=True, query_embed=no_decay, query_feat=no_decay, level_embed=no_decay, **_base_.backbone_keys
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=custom_keys))
