"""DINO with FocalNet-L (3 focal levels) on maps of 4 scales, 12 epochs of 16 images of COCO 2017, as FocalNet-DINO
(https://github.com/FocalNet/FocalNet-DINO) trains it: what all detectors of that release have in common.

mmdetection's own DINO has the same queries, losses, matcher, augmentation, optimizer and
schedule. What differs is below.

Data: https://cocodataset.org, unpacked into data/coco (train2017, val2017 and annotations).
"""

_base_ = ["mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py"]
custom_imports = dict(imports=["focalnet_backbone.openmmlab"], allow_failed_imports=False)

model = dict(
    num_feature_levels=4,
    backbone=dict(
        _delete_=True,
        type="FocalNet",
        variant="focalnet_large_fl3",
        out_indices=(1, 2, 3),
        drop_path_rate=0.3,
        with_cp=True,
        init_cfg=dict(type="Pretrained", checkpoint="focalnet_large_fl3"),
    ),
    # mmdetection leaves out biases before a norm; the released detectors have them.
    neck=dict(in_channels=[384, 768, 1536], bias=True),
    dn_cfg=dict(box_noise_scale=0.4),
)
