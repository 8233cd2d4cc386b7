"""UPerNet with Focal Transformer-S on ADE20K, 512x512, 160k iterations of 16 images: a twin of FocalNet-S's.

    tools/dist_train.sh configs/mmseg/upernet_focal_transformer_small_160k_ade20k_512x512.py 8

Published mIoU: 48.0 (single scale), 50.0 (multi-scale and flip: tools/test.py --tta).
85 M parameters, 1130 GFLOPs at 512x2048.
"""

_base_ = ["./_base_/upernet_twin_160k_ade20k_512x512.py"]

model = dict(
    backbone=dict(_delete_=True, **_base_.focal_transformer_small, drop_path_rate=0.3),
    decode_head=dict(in_channels=_base_.widths_small),
    auxiliary_head=dict(in_channels=384),
)
