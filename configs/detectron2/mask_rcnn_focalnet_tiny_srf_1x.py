"""Mask R-CNN with FocalNet-T (SRF) on COCO 2017, 1x schedule (12 epochs).

Published: box AP 45.9, mask AP 41.3; 48.6 M parameters, 267 GFLOPs at 800x1280.

    tools/train_net.py --num-gpus 8 --config-file configs/detectron2/mask_rcnn_focalnet_tiny_srf_1x.py
"""

from .mask_rcnn_focalnet import set_up

model, dataloader, optimizer, lr_multiplier, train = set_up("focalnet_tiny_srf", epochs=12, drop_path_rate=0.1)
train.output_dir = "outputs/mask_rcnn_focalnet_tiny_srf_1x"
