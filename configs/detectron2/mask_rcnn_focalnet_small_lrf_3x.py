"""Mask R-CNN with FocalNet-S (LRF) on COCO 2017, 3x schedule (36 epochs).

Published: box AP 49.3, mask AP 43.8; 72.3 M parameters, 365 GFLOPs at 800x1280.

    tools/train_net.py --num-gpus 8 --config-file configs/detectron2/mask_rcnn_focalnet_small_lrf_3x.py
"""

from .mask_rcnn_focalnet import set_up

model, dataloader, optimizer, lr_multiplier, train = set_up("focalnet_small_lrf", epochs=36, drop_path_rate=0.5)
train.output_dir = "outputs/mask_rcnn_focalnet_small_lrf_3x"
