"""The sample dataset in COCO's format, for configs of mmdetection to take; images of 256 pixels are halved."""

things = ("ball", "tile", "cone", "star")
stuff = ("photograph", "grass", "gravel", "brick")
palette = [(230, 60, 60), (60, 90, 230), (250, 170, 30), (240, 230, 60)]
palette += [(150, 150, 150), (70, 170, 70), (110, 80, 60), (190, 90, 200)]

side = 96
resize = dict(type="Resize", scale=(side, side), keep_ratio=True)
augmentation = [
    dict(type="RandomResize", scale=(side, side), ratio_range=(1.0, 1.2), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(side, side), recompute_bbox=True, allow_negative_crop=True),
    dict(type="RandomFlip", prob=0.5),
    # Any hue: with so few photographs, a network would otherwise know them by their colours.
    dict(type="PhotoMetricDistortion", hue_delta=90),
    dict(type="PackDetInputs"),
]
pack_test = dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"))
