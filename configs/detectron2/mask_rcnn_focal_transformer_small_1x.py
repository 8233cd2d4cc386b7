"""Mask R-CNN with Focal Transformer-S on COCO 2017, 1x schedule (12 epochs): a twin of FocalNet-S's.

Published: box AP 47.4, mask AP 42.8; 71.2 M parameters, 401 GFLOPs at 800x1280.

    tools/train_net.py --num-gpus 8 --config-file configs/detectron2/mask_rcnn_focal_transformer_small_1x.py
"""

from ._twins import set_up

model, dataloader, optimizer, lr_multiplier, train = set_up("focal_transformer_small", epochs=12, drop_path_rate=0.2)
