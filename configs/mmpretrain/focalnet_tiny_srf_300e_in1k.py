"""FocalNet-T (srf) on ImageNet-1k from random weights, 300 epochs.

    tools/dist_train.sh configs/mmpretrain/focalnet_tiny_srf_300e_in1k.py 8 --amp

Published: top-1 82.1; 28.4 M parameters, 4.4 GFLOPs.
"""

_base_ = ["./_base_/focalnet_tiny_in1k.py"]

model = dict(backbone=dict(variant="focalnet_tiny_srf"))
