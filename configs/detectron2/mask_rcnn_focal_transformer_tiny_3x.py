"""Mask R-CNN with Focal Transformer-T on COCO 2017, 3x schedule (36 epochs): a twin of FocalNet-T's.

Published: box AP 47.2, mask AP 42.7; 48.8 M parameters, 291 GFLOPs at 800x1280.

    tools/train_net.py --num-gpus 8 --config-file configs/detectron2/mask_rcnn_focal_transformer_tiny_3x.py
"""

from ._twins import set_up

model, dataloader, optimizer, lr_multiplier, train = set_up("focal_transformer_tiny", epochs=36, drop_path_rate=0.3)
