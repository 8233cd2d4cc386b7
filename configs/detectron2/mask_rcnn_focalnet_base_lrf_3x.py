"""Mask R-CNN with FocalNet-B (LRF) on COCO 2017, 3x schedule (36 epochs).

Published: box AP 49.8, mask AP 44.1; 111.4 M parameters, 507 GFLOPs at 800x1280.

    tools/train_net.py --num-gpus 8 --config-file configs/detectron2/mask_rcnn_focalnet_base_lrf_3x.py
"""

from .mask_rcnn_focalnet import set_up

model, dataloader, optimizer, lr_multiplier, train = set_up("focalnet_base_lrf", epochs=36, drop_path_rate=0.5)
train.output_dir = "outputs/mask_rcnn_focalnet_base_lrf_3x"
