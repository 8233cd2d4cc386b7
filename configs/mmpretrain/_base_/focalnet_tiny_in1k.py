"""FocalNet-T (lrf) on ImageNet-1k at 224x224 for 300 epochs: the recipe of the release's classification, Swin's.

AdamW at 1e-3 for 1024 images an iteration (8 GPUs x 128), 20 epochs of warm-up, cosine to 1e-5, weight decay 0.05, none
of norms and biases, gradients clipped at 5; RandAugment, Mixup, CutMix, random erasing, label smoothing.

Data: https://image-net.org, unpacked into data/imagenet (train and val, a folder a class in each).
"""

_base_ = [
    "mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py",
    "mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py",
    "mmpretrain::_base_/default_runtime.py",
]
custom_imports = dict(imports=["focalnet_backbone.openmmlab"], allow_failed_imports=False)

model = dict(
    type="ImageClassifier",
    # The last stage's map alone; its norm is the one before the head in classification.
    backbone=dict(type="FocalNet", variant="focalnet_tiny_lrf", drop_path_rate=0.2, out_indices=(3,)),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="LinearClsHead",
        num_classes=1000,
        in_channels=768,
        init_cfg=dict(type="TruncNormal", layer="Linear", std=0.02, bias=0.0),
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
        cal_acc=False,
    ),
    train_cfg=dict(augments=[dict(type="Mixup", alpha=0.8), dict(type="CutMix", alpha=1.0)]),
)
optim_wrapper = dict(clip_grad=dict(max_norm=5.0))
train_dataloader = dict(batch_size=128)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
