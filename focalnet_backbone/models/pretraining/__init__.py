"""Self-supervised pretraining by masked image modeling after SimMIM (arXiv 2111.09886)."""

from focalnet_backbone.models.pretraining.loop import pretrain
from focalnet_backbone.models.pretraining.recipe import Recipe

__all__ = ["Recipe", "pretrain"]
