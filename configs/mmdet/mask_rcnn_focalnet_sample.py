"""A small Mask R-CNN with a FocalNet of 1.1 M parameters on the sample dataset, from random weights, on two CPU cores.

python tools/make_sample_dataset.py data/sample
python tools/train.py configs/mmdet/mask_rcnn_focalnet_sample.py

The recipe of configs/detectron2/mask_rcnn_focalnet_sample.yaml.
"""

_base_ = ["mmdet::_base_/models/mask-rcnn_r50_fpn.py", "mmdet::_base_/default_runtime.py"]
custom_imports = dict(imports=["focalnet_backbone.openmmlab"], allow_failed_imports=False)

norm_cfg = dict(type="GN", num_groups=8)
strides = [4, 8, 16, 32]
proposals = dict(nms_pre=200, max_per_img=100)
model = dict(
    backbone=dict(
        _delete_=True,
        type="FocalNet",
        embed_dim=24,
        depths=[1, 1, 2, 1],
        focal_windows=[3, 3, 3, 3],
        drop_path_rate=0.0,
    ),
    neck=dict(in_channels=[24, 48, 96, 192], out_channels=32, num_outs=4, norm_cfg=norm_cfg),
    rpn_head=dict(
        in_channels=32,
        feat_channels=32,
        # The objects are 10 to 70 pixels wide in an image of 128, and about as high.
        anchor_generator=dict(scales=[3.0, 4.25], ratios=[1.0], strides=strides),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=32, featmap_strides=[4]),
        bbox_head=dict(
            _delete_=True,
            type="ConvFCBBoxHead",
            num_shared_convs=1,
            num_shared_fcs=1,
            in_channels=32,
            conv_out_channels=32,
            fc_out_channels=128,
            roi_feat_size=7,
            num_classes=4,
            norm_cfg=norm_cfg,
            bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_stds=[0.1, 0.1, 0.2, 0.2]),
            loss_cls=dict(type="CrossEntropyLoss"),
            loss_bbox=dict(type="L1Loss"),
        ),
        mask_roi_extractor=dict(out_channels=32, featmap_strides=[4]),
        mask_head=dict(num_convs=2, in_channels=32, conv_out_channels=32, num_classes=4, norm_cfg=norm_cfg),
    ),
    train_cfg=dict(rpn_proposal=proposals, rcnn=dict(sampler=dict(num=32, pos_fraction=0.5))),
    test_cfg=dict(rpn=proposals),
)

dataset = dict(
    type="CocoDataset",
    metainfo=dict(
        classes=("ball", "tile", "cone", "star"),
        palette=[(230, 60, 60), (60, 90, 230), (250, 170, 30), (240, 230, 60)],
    ),
    data_root="data/sample",
)
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        **dataset,
        ann_file="coco/instances_training.json",
        data_prefix=dict(img="images/training"),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
            dict(type="Resize", scale=(128, 128), keep_ratio=True),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackDetInputs"),
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **dataset,
        ann_file="coco/instances_validation.json",
        data_prefix=dict(img="images/validation"),
        test_mode=True,
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(128, 128), keep_ratio=True),
            dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
            dict(
                type="PackDetInputs",
                meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "instances"),
            ),
        ],
    ),
)
test_dataloader = val_dataloader
# Without a file of annotations: those that the dataset has read.
val_evaluator = dict(type="CocoMetric", metric=["bbox", "segm"])
test_evaluator = val_evaluator

iterations = 1000
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations, val_interval=iterations)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={"norm": dict(decay_mult=0.0)}),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=25),
    dict(type="CosineAnnealingLR", eta_min=0.0, by_epoch=False, begin=25, end=iterations),
]
default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=250, max_keep_ckpts=2),
)
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
