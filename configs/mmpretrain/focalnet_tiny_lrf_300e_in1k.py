"""FocalNet-T (lrf) on ImageNet-1k from random weights, 300 epochs.

    tools/dist_train.sh configs/mmpretrain/focalnet_tiny_lrf_300e_in1k.py 8 --amp

Published: top-1 82.3; 28.6 M parameters, 4.5 GFLOPs.
"""

_base_ = ["./_base_/focalnet_tiny_in1k.py"]
