"""Mask R-CNN with Focal Transformer-B on COCO 2017, 1x schedule (12 epochs): a twin of FocalNet-B's.

Published: box AP 47.8, mask AP 43.2; 110.0 M parameters, 533 GFLOPs at 800x1280.

    tools/train_net.py --num-gpus 8 --config-file configs/detectron2/mask_rcnn_focal_transformer_base_1x.py
"""

from ._twins import set_up

model, dataloader, optimizer, lr_multiplier, train = set_up("focal_transformer_base", epochs=12, drop_path_rate=0.3)
