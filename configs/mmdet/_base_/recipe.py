"""How the paper trains detectors on COCO 2017, for their configs to take: FocalNet-T (srf) with ImageNet weights,
multi-scale training, AdamW, 36 epochs of 16 images (8 GPUs x 2; mixed precision by tools/train.py --amp).

Data: https://cocodataset.org, unpacked into data/coco (train2017, val2017 and annotations).
"""

custom_imports = dict(imports=["focalnet_backbone.openmmlab"], allow_failed_imports=False)

# Published weights have windows of 3; the loader enlarges their kernels.
focalnet = dict(
    type="FocalNet",
    variant="focalnet_tiny_srf",
    drop_path_rate=0.3,
    init_cfg=dict(type="Pretrained", checkpoint="focalnet_tiny_srf"),
)

short_sides = dict(type="RandomChoiceResize", scales=[(side, 1333) for side in range(480, 801, 32)], keep_ratio=True)
cropped = [
    dict(type="RandomChoiceResize", scales=[(side, 1333) for side in (400, 500, 600)], keep_ratio=True),
    dict(type="RandomCrop", crop_type="absolute_range", crop_size=(384, 600), allow_negative_crop=True),
    short_sides,
]
augmentation = [
    dict(type="RandomFlip", prob=0.5),
    dict(type="RandomChoice", transforms=[[short_sides], cropped]),
    dict(type="PackDetInputs"),
]
load_image = dict(type="LoadImageFromFile")
box_pipeline = [load_image, dict(type="LoadAnnotations", with_bbox=True), *augmentation]
mask_pipeline = [load_image, dict(type="LoadAnnotations", with_bbox=True, with_mask=True), *augmentation]

adamw = dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05)
no_decay_of_norms = dict(custom_keys={"norm": dict(decay_mult=0.0)})
schedule_3x = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=36, milestones=[27, 33], gamma=0.1),
]
