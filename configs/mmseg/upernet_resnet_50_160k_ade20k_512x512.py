"""UPerNet with ResNet-50 on ADE20K, 512x512, 160k iterations of 16 images: a twin of FocalNet-T's.

    tools/dist_train.sh configs/mmseg/upernet_resnet_50_160k_ade20k_512x512.py 8

No results are published.
"""

_base_ = ["./_base_/upernet_twin_160k_ade20k_512x512.py"]

model = dict(
    backbone=dict(_delete_=True, **_base_.resnet_50, norm_cfg=dict(type="SyncBN", requires_grad=True)),
    decode_head=dict(in_channels=_base_.widths_50),
    auxiliary_head=dict(in_channels=1024),
)
