"""UPerNet with Swin-B on ADE20K, 512x512, 160k iterations of 16 images: a twin of FocalNet-B's.

    tools/dist_train.sh configs/mmseg/upernet_swin_base_160k_ade20k_512x512.py 8

Published mIoU: 48.1 (single scale), 49.7 (multi-scale and flip: tools/test.py --tta).
121 M parameters, 1188 GFLOPs at 512x2048.
"""

_base_ = ["./_base_/upernet_twin_160k_ade20k_512x512.py"]

model = dict(
    backbone=dict(_delete_=True, **_base_.swin_base, drop_path_rate=0.3),
    decode_head=dict(in_channels=_base_.widths_base),
    auxiliary_head=dict(in_channels=512),
)
