"""Cascade Mask R-CNN with FocalNet-T (srf), 3x schedule: box heads of four convolutions, GIoU loss."""

_base_ = ["mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py", "./recipe.py"]

model = dict(
    backbone=dict(_delete_=True, **_base_.focalnet, focal_windows=[11, 9, 9, 7]),
    neck=dict(in_channels=[96, 192, 384, 768]),
    roi_head=dict(
        bbox_head=[
            dict(
                type="ConvFCBBoxHead",
                num_shared_convs=4,
                num_shared_fcs=1,
                in_channels=256,
                conv_out_channels=256,
                fc_out_channels=1024,
                roi_feat_size=7,
                num_classes=80,
                bbox_coder=dict(
                    type="DeltaXYWHBBoxCoder", target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[xy, xy, wh, wh]
                ),
                reg_class_agnostic=False,
                reg_decoded_bbox=True,
                norm_cfg=dict(type="SyncBN", requires_grad=True),
                loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
                loss_bbox=dict(type="GIoULoss", loss_weight=10.0),
            )
            for xy, wh in [(0.1, 0.2), (0.05, 0.1), (0.033, 0.067)]
        ]
    ),
)
train_dataloader = dict(dataset=dict(pipeline=_base_.mask_pipeline))
train_cfg = dict(max_epochs=36)
param_scheduler = _base_.schedule_3x
optim_wrapper = dict(optimizer=dict(_delete_=True, **_base_.adamw), paramwise_cfg=_base_.no_decay_of_norms)
