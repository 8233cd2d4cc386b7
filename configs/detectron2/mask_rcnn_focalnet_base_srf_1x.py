"""Mask R-CNN with FocalNet-B (SRF) on COCO 2017, 1x schedule (12 epochs).

Published: box AP 48.8, mask AP 43.3; 109.4 M parameters, 496 GFLOPs at 800x1280.

    tools/train_net.py --num-gpus 8 --config-file configs/detectron2/mask_rcnn_focalnet_base_srf_1x.py
"""

from .mask_rcnn_focalnet import set_up

model, dataloader, optimizer, lr_multiplier, train = set_up("focalnet_base_srf", epochs=12, drop_path_rate=0.3)
train.output_dir = "outputs/mask_rcnn_focalnet_base_srf_1x"
