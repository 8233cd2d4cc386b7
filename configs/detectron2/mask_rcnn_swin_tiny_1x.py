"""Mask R-CNN with Swin-T on COCO 2017, 1x schedule (12 epochs): a twin of FocalNet-T's.

Published: box AP 43.7, mask AP 39.8; 47.8 M parameters, 267 GFLOPs at 800x1280.

    tools/train_net.py --num-gpus 8 --config-file configs/detectron2/mask_rcnn_swin_tiny_1x.py
"""

from ._twins import set_up

model, dataloader, optimizer, lr_multiplier, train = set_up("swin_tiny", epochs=12, drop_path_rate=0.1)
