"""Mask R-CNN with ConvNeXt-S on COCO 2017, 1x schedule (12 epochs): a twin of FocalNet-S's.

No results are published.

    tools/train_net.py --num-gpus 8 --config-file configs/detectron2/mask_rcnn_convnext_small_1x.py
"""

from ._twins import set_up

model, dataloader, optimizer, lr_multiplier, train = set_up("convnext_small", epochs=12, drop_path_rate=0.2)
