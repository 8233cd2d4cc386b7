"""Mask R-CNN with Swin-S on COCO 2017, 3x schedule (36 epochs): a twin of FocalNet-S's.

Published: box AP 48.5, mask AP 43.3; 69.1 M parameters, 359 GFLOPs at 800x1280.

    tools/train_net.py --num-gpus 8 --config-file configs/detectron2/mask_rcnn_swin_small_3x.py
"""

from ._twins import set_up

model, dataloader, optimizer, lr_multiplier, train = set_up("swin_small", epochs=36, drop_path_rate=0.5)
