"""Mask R-CNN with FocalNet-T (LRF) on COCO 2017, 3x schedule (36 epochs).

Published: box AP 48.0, mask AP 42.9; 48.8 M parameters, 268 GFLOPs at 800x1280.

    tools/train_net.py --num-gpus 8 --config-file configs/detectron2/mask_rcnn_focalnet_tiny_lrf_3x.py
"""

from .mask_rcnn_focalnet import set_up

model, dataloader, optimizer, lr_multiplier, train = set_up("focalnet_tiny_lrf", epochs=36, drop_path_rate=0.3)
train.output_dir = "outputs/mask_rcnn_focalnet_tiny_lrf_3x"
