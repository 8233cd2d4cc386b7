"""FocalNet's Mask R-CNN, 1x schedule, for other backbones: what the twins have in common."""

_base_ = ["./mask_rcnn_focalnet_1x.py", "./twins.py"]

custom_imports = _base_.twin_imports
optim_wrapper = dict(paramwise_cfg=_base_.no_decay_of_twins)
