"""Cascade Mask R-CNN with FocalNet-B (LRF) on COCO 2017 at 1024x1024 with large-scale jitter, 50 epochs.

    tools/train_net.py --num-gpus 64 --config-file configs/detectron2/cascade_mask_rcnn_focalnet_base_lrf_lsj_50ep.py

Inferred: the recipe of detectron2's Cascade Mask R-CNN with Swin-B. Nothing was published for FocalNet.
FocalNet-B starts from ImageNet-1K, as there are no weights of ImageNet-22K; its windows are those of Mask R-CNN.
"""

from ._cascade_mask_rcnn_focalnet import set_up

model, dataloader, optimizer, lr_multiplier, train = set_up("focalnet_base_lrf", focal_windows=[9, 9, 9, 9])
train.output_dir = "outputs/cascade_mask_rcnn_focalnet_base_lrf_lsj_50ep"
