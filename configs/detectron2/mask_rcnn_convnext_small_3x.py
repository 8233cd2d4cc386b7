"""Mask R-CNN with ConvNeXt-S on COCO 2017, 3x schedule (36 epochs): a twin of FocalNet-S's.

No results are published.

    tools/train_net.py --num-gpus 8 --config-file configs/detectron2/mask_rcnn_convnext_small_3x.py
"""

from ._twins import set_up

model, dataloader, optimizer, lr_multiplier, train = set_up("convnext_small", epochs=36, drop_path_rate=0.5)
