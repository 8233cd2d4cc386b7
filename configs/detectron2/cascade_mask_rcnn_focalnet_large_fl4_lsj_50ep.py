"""Cascade Mask R-CNN with FocalNet-L (4 focal levels) on COCO 2017 at 1024x1024 with large-scale jitter, 50 epochs.

    tools/train_net.py --num-gpus 64 --config-file configs/detectron2/cascade_mask_rcnn_focalnet_large_fl4_lsj_50ep.py

Inferred: the recipe of detectron2's Cascade Mask R-CNN with Swin-L. Nothing was published for FocalNet.
FocalNet-L starts from ImageNet-22K.
"""

from ._cascade_mask_rcnn_focalnet import set_up

model, dataloader, optimizer, lr_multiplier, train = set_up("focalnet_large_fl4")
train.output_dir = "outputs/cascade_mask_rcnn_focalnet_large_fl4_lsj_50ep"
