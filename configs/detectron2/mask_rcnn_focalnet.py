"""Mask R-CNN with a FocalNet and FPN on COCO 2017, as in arXiv 2203.11926: what the twelve set-ups share.

The recipe and its differences from detectron2's defaults are told in Base-MaskRCNN-FocalNet.yaml; detectron2's own
LazyConfig of Mask R-CNN has the release's proposals, anchors and losses already.
"""

from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

from focalnet_backbone.detectron2 import FocalNetBackbone
from focalnet_backbone.detectron2.loader import detr_crop

# Of 118287 images 117266 have objects. With 16 an iteration, and the last batch of the wide and of the tall images
# filled up, an epoch has 7330 iterations.
EPOCH = 7330


def set_up(variant, epochs, drop_path_rate):
    """The configs (model, dataloader, optimizer, lr_multiplier, train) of one set-up."""
    model = get_config("common/models/mask_rcnn_fpn.py").model
    model.backbone.bottom_up = L(FocalNetBackbone)(
        variant=variant,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        focal_windows=[9, 9, 9, 9],
        drop_path_rate=drop_path_rate,
    )
    model.pixel_mean = [123.675, 116.28, 103.53]
    model.pixel_std = [58.395, 57.12, 57.375]
    model.input_format = "RGB"

    dataloader = get_config("common/data/coco.py").dataloader
    dataloader.train.mapper.image_format = "RGB"
    dataloader.train.mapper.augmentations[0].short_edge_length = list(range(480, 801, 32))
    # Half of the images are cropped before, as in DETR.
    dataloader.train.mapper.augmentations.insert(0, L(detr_crop)())

    optimizer = get_config("common/optim.py").AdamW
    optimizer.weight_decay = 0.05

    train = get_config("common/train.py").train
    train.init_checkpoint = variant
    train.update(seed=-1, best_metric="bbox/AP")
    train.amp.enabled = True
    train.max_iter = epochs * EPOCH
    train.eval_period = train.checkpointer.period = EPOCH

    # The rate drops after 9 and 11 of 12 epochs, or after 27 and 33 of 36.
    lr_multiplier = L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(values=[1, 0.1, 0.01], milestones=[9, 11, 12]),
        warmup_factor=0.001,
        warmup_length=500 / train.max_iter,
    )
    return model, dataloader, optimizer, lr_multiplier, train
