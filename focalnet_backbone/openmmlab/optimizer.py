"""Learning rates that decay with a layer's depth."""

from __future__ import annotations

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's default constructor, with smaller learning rates for the earlier layers of the backbone.

    `paramwise_cfg` takes `decay_rate` beside what the default constructor takes: a layer's learning rate is that of
    the layer after it times this rate. The heads have the full learning rate.

    Raises:
        ValueError: `decay_rate` is missing or not positive.
        TypeError: the model's backbone has no `get_layer_depth`.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        rate = self.paramwise_cfg.get("decay_rate")
        if not isinstance(rate, int | float) or rate <= 0:
            raise ValueError(f"LayerDecayOptimWrapperConstructor needs paramwise_cfg.decay_rate > 0, got {rate}")

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = "", **kwargs: Any) -> None:
        """Append a parameter group for each parameter of `module`."""
        super().add_params(params, module, prefix, **kwargs)
        if prefix:  # A part of the model, in the recursion of the default constructor.
            return
        get_layer_depth = getattr(getattr(module, "backbone", None), "get_layer_depth", None)
        if get_layer_depth is None:
            raise TypeError("LayerDecayOptimWrapperConstructor needs a model whose backbone has get_layer_depth")
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        for group in params:
            depth, count = get_layer_depth(names[id(group["params"][0])], prefix="backbone.")
            scale = self.paramwise_cfg["decay_rate"] ** (count - 1 - depth)
            group["lr"] = group.get("lr", self.base_lr) * scale
