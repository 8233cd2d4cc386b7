"""Cascade Mask R-CNN with a FocalNet and FPN on COCO 2017 at 1024x1024 with large-scale jitter, 50 epochs of 64 images.

It is the recipe of detectron2's ViTDet project for Swin and MViTv2, with the backbone replaced: LayerNorm in FPN and
heads, two convolutions in the proposals' head, box heads of four convolutions.
"""

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T
from detectron2.layers import ShapeSpec
from detectron2.model_zoo import get_config
from detectron2.modeling.roi_heads import FastRCNNConvFCHead
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

from focalnet_backbone.detectron2 import FocalNetBackbone

SIDE = 1024
# 100 epochs = 184375 iterations * 64 images / 118000 images; this is half of them.
ITERATIONS = 184375 // 2


def set_up(variant, **knobs):
    """The configs (model, dataloader, optimizer, lr_multiplier, train) of one set-up."""
    model = get_config("common/models/cascade_rcnn.py").model
    model.backbone.bottom_up = L(FocalNetBackbone)(
        variant=variant, out_features=["stage1", "stage2", "stage3", "stage4"], drop_path_rate=0.4, **knobs
    )
    model.backbone.update(in_features="${.bottom_up.out_features}", norm="LN", square_pad=SIDE)
    model.pixel_mean = [123.675, 116.28, 103.53]
    model.pixel_std = [58.395, 57.12, 57.375]
    model.input_format = "RGB"
    model.proposal_generator.head.conv_dims = [-1, -1]
    model.roi_heads.mask_head.conv_norm = "LN"
    model.roi_heads.box_heads = [
        L(FastRCNNConvFCHead)(
            input_shape=ShapeSpec(channels=256, height=7, width=7),
            conv_dims=[256, 256, 256, 256],
            fc_dims=[1024],
            conv_norm="LN",
        )
        for _ in range(3)
    ]

    dataloader = get_config("common/data/coco.py").dataloader
    dataloader.train.total_batch_size = 64
    dataloader.train.mapper.update(image_format="RGB", recompute_boxes=True)
    dataloader.train.mapper.augmentations = [
        L(T.RandomFlip)(horizontal=True),
        L(T.ResizeScale)(min_scale=0.1, max_scale=2.0, target_height=SIDE, target_width=SIDE),
        L(T.FixedSizeCrop)(crop_size=(SIDE, SIDE), pad=False),
    ]
    dataloader.test.mapper.augmentations = [L(T.ResizeShortestEdge)(short_edge_length=SIDE, max_size=SIDE)]

    optimizer = get_config("common/optim.py").AdamW
    optimizer.update(lr=4e-5, weight_decay=0.05)

    train = get_config("common/train.py").train
    train.init_checkpoint = variant
    train.update(seed=-1, best_metric="bbox/AP", max_iter=ITERATIONS)
    train.amp.enabled = train.ddp.fp16_compression = True

    lr_multiplier = L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[1.0, 0.1, 0.01], milestones=[163889 // 2, 177546 // 2], num_updates=ITERATIONS
        ),
        warmup_length=250 / ITERATIONS,
        warmup_factor=0.001,
    )
    return model, dataloader, optimizer, lr_multiplier, train
