"""Mask R-CNN with Focal Transformer-S on COCO 2017, 3x schedule (36 epochs): a twin of FocalNet-S's.

Published: box AP 48.8, mask AP 43.8; 71.2 M parameters, 401 GFLOPs at 800x1280.

    tools/train_net.py --num-gpus 8 --config-file configs/detectron2/mask_rcnn_focal_transformer_small_3x.py
"""

from ._twins import set_up

model, dataloader, optimizer, lr_multiplier, train = set_up("focal_transformer_small", epochs=36, drop_path_rate=0.5)
