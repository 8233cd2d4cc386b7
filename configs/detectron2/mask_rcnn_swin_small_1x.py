"""Mask R-CNN with Swin-S on COCO 2017, 1x schedule (12 epochs): a twin of FocalNet-S's.

Published: 69.1 M parameters, 359 GFLOPs at 800x1280; of this schedule, no result by its authors.

    tools/train_net.py --num-gpus 8 --config-file configs/detectron2/mask_rcnn_swin_small_1x.py
"""

from ._twins import set_up

model, dataloader, optimizer, lr_multiplier, train = set_up("swin_small", epochs=12, drop_path_rate=0.2)
