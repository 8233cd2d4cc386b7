"""FocalNet's UPerNet on ADE20K for other backbones: what the twins have in common."""

_base_ = ["./upernet_focalnet_160k_ade20k_512x512.py", "../../mmdet/_base_/twins.py"]

custom_imports = _base_.twin_imports
optim_wrapper = dict(paramwise_cfg=_base_.no_decay_of_twins)
