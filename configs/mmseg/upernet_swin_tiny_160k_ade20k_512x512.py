"""UPerNet with Swin-T on ADE20K, 512x512, 160k iterations of 16 images: a twin of FocalNet-T's.

    tools/dist_train.sh configs/mmseg/upernet_swin_tiny_160k_ade20k_512x512.py 8

Published mIoU: 44.5 (single scale), 45.8 (multi-scale and flip: tools/test.py --tta).
60 M parameters, 945 GFLOPs at 512x2048.
"""

_base_ = ["./_base_/upernet_twin_160k_ade20k_512x512.py"]

model = dict(
    backbone=dict(_delete_=True, **_base_.swin_tiny, drop_path_rate=0.3),
    decode_head=dict(in_channels=_base_.widths_tiny),
    auxiliary_head=dict(in_channels=384),
)
