"""DINO, 5 scales, with FocalNet-L (4 focal levels): fine-tuning on COCO 2017 after Objects365, at 1200x2000.

    tools/dist_train.sh configs/mmdet/dino-5scale_focalnet_large_fl4_hres_12e_coco.py 8

Source: config/DINO/coco_transformer_hres.py of FocalNet-DINO, which no config there names. Inferred: that it belongs
to the fine-tuning after Objects365 and to the published box AP 63.5 (the converted model was measured at 62.7 at
800x1333), and the 12 epochs: no recipe of the fine-tuning was published. 228.88 M parameters.

Its result, published: dino-5scale_focalnet_large_fl4_o365-coco
https://huggingface.co/microsoft/focalnet-large-fl4-dino-o365-cocoft
"""

_base_ = ["./dino-5scale_focalnet_large_fl4_12e_coco.py"]

# The weights of Objects365 come whole, but for the heads and labels of its classes, which start anew.
load_from = "dino-5scale_focalnet_large_fl4_o365"
model = dict(backbone=dict(init_cfg=None))

short_sides = dict(
    type="RandomChoiceResize",
    scales=[(side, 2000) for side in (480, 560, 640, 720, 800, 900, 1000, 1100, 1200)],
    keep_ratio=True,
)
cropped = [
    # No limit on the long side: that of COCO's longest image is below 7 times the short one.
    dict(type="RandomChoiceResize", scales=[(side, 6300) for side in range(400, 901, 100)], keep_ratio=True),
    dict(type="RandomCrop", crop_type="absolute_range", crop_size=(384, 900), allow_negative_crop=True),
    short_sides,
]
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="RandomChoice", transforms=[[short_sides], cropped]),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(2000, 1200), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
