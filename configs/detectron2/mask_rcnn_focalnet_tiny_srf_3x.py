"""Mask R-CNN with FocalNet-T (SRF) on COCO 2017, 3x schedule (36 epochs).

Published: box AP 47.6, mask AP 42.6; 48.6 M parameters, 267 GFLOPs at 800x1280.

    tools/train_net.py --num-gpus 8 --config-file configs/detectron2/mask_rcnn_focalnet_tiny_srf_3x.py
"""

from .mask_rcnn_focalnet import set_up

model, dataloader, optimizer, lr_multiplier, train = set_up("focalnet_tiny_srf", epochs=36, drop_path_rate=0.3)
train.output_dir = "outputs/mask_rcnn_focalnet_tiny_srf_3x"
