"""UPerNet with ResNet-101 on ADE20K, 512x512, 160k iterations of 16 images: a twin of FocalNet-S's.

    tools/dist_train.sh configs/mmseg/upernet_resnet_101_160k_ade20k_512x512.py 8

Published mIoU, by a recipe of its own: 44.9 (multi-scale and flip: tools/test.py --tta).
86 M parameters, 1029 GFLOPs at 512x2048.
"""

_base_ = ["./_base_/upernet_twin_160k_ade20k_512x512.py"]

model = dict(
    backbone=dict(_delete_=True, **_base_.resnet_101, norm_cfg=dict(type="SyncBN", requires_grad=True)),
    decode_head=dict(in_channels=_base_.widths_101),
    auxiliary_head=dict(in_channels=1024),
)
