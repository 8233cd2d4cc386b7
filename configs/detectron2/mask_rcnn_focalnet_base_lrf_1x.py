"""Mask R-CNN with FocalNet-B (LRF) on COCO 2017, 1x schedule (12 epochs).

Published: box AP 49.0, mask AP 43.5; 111.4 M parameters, 507 GFLOPs at 800x1280.

    tools/train_net.py --num-gpus 8 --config-file configs/detectron2/mask_rcnn_focalnet_base_lrf_1x.py
"""

from .mask_rcnn_focalnet import set_up

model, dataloader, optimizer, lr_multiplier, train = set_up("focalnet_base_lrf", epochs=12, drop_path_rate=0.3)
train.output_dir = "outputs/mask_rcnn_focalnet_base_lrf_1x"
