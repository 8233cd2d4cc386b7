"""FocalNet's Mask R-CNN for other backbones: what the twins share, whose backbone alone is another."""

from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config
from detectron2.modeling.backbone import SwinTransformer

from focalnet_backbone.benchmark.twins.convnext import ConvNeXt
from focalnet_backbone.benchmark.twins.detectron2 import PaddedSimpleFeaturePyramid, PyramidBackbone
from focalnet_backbone.benchmark.twins.focal_transformer import FocalTransformer

from .mask_rcnn_focalnet import set_up as set_up_focalnet

STAGES = ["stage1", "stage2", "stage3", "stage4"]
SWIN = {
    "tiny": {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24]},
    "small": {"embed_dim": 96, "depths": [2, 2, 18, 2], "num_heads": [3, 6, 12, 24]},
    "base": {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]},
}
# Their names are found in the model by what they end with.
PRETRAINED = {
    "swin": "https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_{}_patch4_window7_224.pth",
    "convnext_tiny": "https://download.pytorch.org/models/convnext_tiny-983f1562.pth",
    "convnext_small": "https://download.pytorch.org/models/convnext_small-0c510722.pth",
    "convnext_base": "https://download.pytorch.org/models/convnext_base-6075fbad.pth",
    "vit_base": "detectron2://ImageNetPretrained/MAE/mae_pretrain_vit_base.pth",
}
# No decay of position embeddings, as in the recipes of these backbones.
UNDECAYED = ("relative_position_bias_table", "pos_embed")


def swin(model, size, drop_path_rate):
    """Swin under the FPN; returns the weights to start from."""
    model.backbone.bottom_up = L(SwinTransformer)(**SWIN[size], drop_path_rate=drop_path_rate)
    model.backbone.in_features = ["p0", "p1", "p2", "p3"]
    return PRETRAINED["swin"].format(size) + "?matching_heuristics=True"


def convnext(model, size, drop_path_rate):
    """torchvision's ConvNeXt under the FPN; returns the weights to start from."""
    model.backbone.bottom_up = L(PyramidBackbone)(network=L(ConvNeXt)(size=size, drop_path_rate=drop_path_rate))
    model.backbone.in_features = STAGES
    return PRETRAINED[f"convnext_{size}"] + "?matching_heuristics=True"


def focal_transformer(model, size, drop_path_rate):
    """Focal Transformer under the FPN; from random weights, as none are published by its names."""
    network = L(FocalTransformer)(size=size, drop_path_rate=drop_path_rate)
    model.backbone.bottom_up = L(PyramidBackbone)(network=network)
    model.backbone.in_features = STAGES
    return ""


def resnet(model, depth, drop_path_rate):
    """detectron2's ResNet under the FPN as there, its stem and first stage frozen; returns the weights to start from.

    Those of 101 layers are torchvision's, made by detectron2's `tools/convert-torchvision-to-d2.py`.
    """
    model.backbone = get_config("common/models/mask_rcnn_fpn.py").model.backbone
    model.backbone.bottom_up.stages.update(depth=int(depth), stride_in_1x1=False)
    model.backbone.bottom_up.freeze_at = 2
    return "detectron2://ImageNetPretrained/torchvision/R-50.pkl" if depth == "50" else "R-101.pkl"


def vit(model, size, drop_path_rate):
    """ViT-B with the simple feature pyramid of ViTDet (arXiv 2203.16527) for an FPN; returns MAE's weights."""
    model.backbone = get_config("common/models/mask_rcnn_vitdet.py").model.backbone
    model.backbone._target_ = PaddedSimpleFeaturePyramid
    model.backbone.square_pad = 0
    model.backbone.net.drop_path_rate = drop_path_rate
    return PRETRAINED[f"vit_{size}"] + "?matching_heuristics=True"


FAMILIES = {f.__name__: f for f in (swin, convnext, focal_transformer, resnet, vit)}


def set_up(twin, epochs, drop_path_rate=0.0):
    """The configs (model, dataloader, optimizer, lr_multiplier, train) of one twin, such as `swin_tiny`."""
    model, dataloader, optimizer, lr_multiplier, train = set_up_focalnet("focalnet_tiny_srf", epochs, drop_path_rate)
    family, _, size = twin.rpartition("_")
    train.init_checkpoint = FAMILIES[family](model, size, drop_path_rate)
    train.output_dir = f"outputs/mask_rcnn_{twin}_{'1x' if epochs == 12 else '3x'}"
    optimizer.params.overrides = {name: {"weight_decay": 0.0} for name in UNDECAYED}
    return model, dataloader, optimizer, lr_multiplier, train
