"""What decides the loss curve of a run, beside the model and the images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from focalnet_backbone.network.config import FocalNetConfig

AMP_TYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Recipe:
    """A SimMIM recipe.

    Args:
        image_size: side of the crops in pixels.
        mask_ratio: part of each image that is masked.
        mask_block: side of the masked blocks in pixels.
        steps: optimiser steps.
        batch_size: images a step, over all processes.
        lr: peak learning rate of AdamW.
        warmup_steps: steps over which it rises linearly; it then falls to 0 along a cosine.
        weight_decay: of weights with more than one dimension.
        clip_norm: greatest norm of the gradients.
        amp: "off", "bf16" or "fp16" (with loss scaling).
        seed: of everything random.

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    image_size: int = 192
    mask_ratio: float = 0.6
    mask_block: int = 32
    steps: int = 10_000
    batch_size: int = 64
    lr: float = 4e-4
    warmup_steps: int = 500
    weight_decay: float = 0.05
    clip_norm: float = 5.0
    amp: str = "off"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("image_size", "mask_block", "steps", "batch_size", "lr", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("warmup_steps", "weight_decay", "seed"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not 0 < self.mask_ratio <= 1:
            raise ValueError(f"mask_ratio must be above 0 and at most 1, got {self.mask_ratio}")
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must be less than steps {self.steps}")
        if self.amp not in AMP_TYPES:
            raise ValueError(f"amp must be one of {', '.join(AMP_TYPES)}, got {self.amp!r}")
        if self.image_size % self.mask_block:
            raise ValueError(f"image_size {self.image_size} must be a multiple of mask_block {self.mask_block}")

    def fit(self, config: FocalNetConfig) -> FocalNetConfig:
        """The config with `image_size` and `encoder_stride` as this recipe needs them.

        Raises `ValueError` if the architecture's strides do not divide the recipe's sizes.
        """
        stride = config.stage_strides[-1]
        if self.image_size % stride:
            raise ValueError(f"image_size {self.image_size} must be a multiple of the last stage's stride {stride}")
        if self.mask_block % config.patch_size:
            raise ValueError(f"mask_block {self.mask_block} must be a multiple of patch_size {config.patch_size}")
        return config.replace(image_size=self.image_size, encoder_stride=stride)

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        return self.lr * (1 + math.cos(math.pi * progress)) / 2
