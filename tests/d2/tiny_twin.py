"""The tiny LazyConfig with another backbone, as the twins' have."""

from detectron2.config import LazyCall as L

from focalnet_backbone.benchmark.twins.convnext import ConvNeXt
from focalnet_backbone.benchmark.twins.detectron2 import PyramidBackbone

from .tiny_lazy import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

network = L(ConvNeXt)(size=None, width=4, depths=[1, 1, 1, 1])
model.backbone.bottom_up = L(PyramidBackbone)(network=network)
model.backbone.in_features = ["stage1", "stage2", "stage3", "stage4"]
