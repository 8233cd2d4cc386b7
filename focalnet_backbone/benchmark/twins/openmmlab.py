"""The twins' backbones in mmengine's registry; a config needs this module in its `custom_imports`."""

from __future__ import annotations

from typing import Any

from mmengine.model import BaseModule
from mmengine.registry import MODELS

from focalnet_backbone.benchmark.twins import convnext, focal_transformer


@MODELS.register_module()
class TorchvisionConvNeXt(convnext.ConvNeXt, BaseModule):
    """`ConvNeXt` for necks and heads; `init_cfg` may load weights by torchvision's names."""

    def __init__(
        self, size: str | None, drop_path_rate: float = 0.0, init_cfg: dict | None = None, **knobs: Any
    ) -> None:
        super().__init__(size, drop_path_rate, **knobs)
        self.init_cfg = init_cfg


@MODELS.register_module()
class FocalTransformer(focal_transformer.FocalTransformer, BaseModule):
    """`FocalTransformer` for necks and heads."""

    def __init__(self, size: str | None = "tiny", drop_path_rate: float = 0.0, init_cfg: dict | None = None) -> None:
        super().__init__(size, drop_path_rate)
        self.init_cfg = init_cfg
