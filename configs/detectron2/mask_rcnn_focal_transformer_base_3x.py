"""Mask R-CNN with Focal Transformer-B on COCO 2017, 3x schedule (36 epochs): a twin of FocalNet-B's.

Published: box AP 49.0, mask AP 43.7; 110.0 M parameters, 533 GFLOPs at 800x1280.

    tools/train_net.py --num-gpus 8 --config-file configs/detectron2/mask_rcnn_focal_transformer_base_3x.py
"""

from ._twins import set_up

model, dataloader, optimizer, lr_multiplier, train = set_up("focal_transformer_base", epochs=36, drop_path_rate=0.5)
