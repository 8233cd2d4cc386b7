"""The backbones that FocalNet's detectors and segmenters are compared with, for the twins' configs to take.

Each with ImageNet-1K's weights, in mmdetection's scope as in mmsegmentation's. ConvNeXt is torchvision's, Focal
Transformer this package's, from random weights, as none are published by its names.
"""

# The same files as mmsegmentation's configs name; the release's own are called otherwise.
pretrained_swin = "https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/swin/swin_{}_patch4_window7_224_{}.pth"
swin_tiny = dict(
    type="SwinTransformer",
    embed_dims=96,
    depths=[2, 2, 6, 2],
    num_heads=[3, 6, 12, 24],
    init_cfg=dict(type="Pretrained", checkpoint=pretrained_swin.format("tiny", "20220317-1cdeb081")),
)
swin_small = dict(
    type="SwinTransformer",
    embed_dims=96,
    depths=[2, 2, 18, 2],
    num_heads=[3, 6, 12, 24],
    init_cfg=dict(type="Pretrained", checkpoint=pretrained_swin.format("small", "20220317-7ba6d6dd")),
)
swin_base = dict(
    type="SwinTransformer",
    embed_dims=128,
    depths=[2, 2, 18, 2],
    num_heads=[4, 8, 16, 32],
    init_cfg=dict(type="Pretrained", checkpoint=pretrained_swin.format("base", "20220317-e9b98025")),
)

convnext_tiny, convnext_small, convnext_base = (
    dict(
        type="TorchvisionConvNeXt",
        size=size,
        init_cfg=dict(type="Pretrained", checkpoint=f"torchvision://convnext_{size}.imagenet1k_v1"),
    )
    for size in ("tiny", "small", "base")
)

focal_transformer_tiny, focal_transformer_small, focal_transformer_base = (
    dict(type="FocalTransformer", size=size) for size in ("tiny", "small", "base")
)

resnet_50, resnet_101 = (
    dict(
        type="ResNet",
        depth=depth,
        init_cfg=dict(type="Pretrained", checkpoint=f"torchvision://resnet{depth}"),
    )
    for depth in (50, 101)
)

widths_tiny = widths_small = [96, 192, 384, 768]
widths_base = [128, 256, 512, 1024]
widths_50 = widths_101 = [256, 512, 1024, 2048]

twin_imports = dict(
    imports=["focalnet_backbone.openmmlab", "focalnet_backbone.benchmark.twins.openmmlab"], allow_failed_imports=False
)
# The recipe's own key finds FocalNet's norms by their names. Those of other backbones are found by their type.
no_decay_of_twins = dict(norm_decay_mult=0.0, custom_keys={"relative_position_bias_table": dict(decay_mult=0.0)})
