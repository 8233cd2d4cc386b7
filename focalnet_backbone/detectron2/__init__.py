"""FocalNet for detectron2: importing this puts the backbones into detectron2's registry."""

import warnings

# detectron2 compiles functions by torch.jit as it is imported, which is no concern of who uses it.
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=".torch.jit.script", category=FutureWarning)
    from focalnet_backbone.detectron2.compat import provide_operators

    provide_operators()

    from focalnet_backbone.detectron2.backbone import (
        FocalNetBackbone,
        build_focalnet_backbone,
        build_focalnet_fpn_backbone,
        build_retinanet_focalnet_fpn_backbone,
    )
    from focalnet_backbone.detectron2.checkpoint import FocalNetCheckpointer
    from focalnet_backbone.detectron2.config import add_focalnet_config
    from focalnet_backbone.detectron2.photos import read_photos_alike
    from focalnet_backbone.detectron2.zoo import get_config, get_config_file

read_photos_alike()

__all__ = [
    "FocalNetBackbone",
    "FocalNetCheckpointer",
    "add_focalnet_config",
    "build_focalnet_backbone",
    "build_focalnet_fpn_backbone",
    "build_retinanet_focalnet_fpn_backbone",
    "get_config",
    "get_config_file",
]
