"""Mask R-CNN with FocalNet-T (LRF) on COCO 2017, 1x schedule (12 epochs).

Published: box AP 46.1, mask AP 41.5; 48.8 M parameters, 268 GFLOPs at 800x1280.

    tools/train_net.py --num-gpus 8 --config-file configs/detectron2/mask_rcnn_focalnet_tiny_lrf_1x.py
"""

from .mask_rcnn_focalnet import set_up

model, dataloader, optimizer, lr_multiplier, train = set_up("focalnet_tiny_lrf", epochs=12, drop_path_rate=0.1)
train.output_dir = "outputs/mask_rcnn_focalnet_tiny_lrf_1x"
