"""From a photograph to the names of what is on it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvF

from focalnet_backbone.models.classification import FocalNetForImageClassification
from focalnet_backbone.models.image_processor import FocalNetImageProcessor
from focalnet_backbone.models.pretrained import read_config


def load_classifier(
    variant: str | None = None, weights: str | Path | None = None
) -> tuple[FocalNetForImageClassification, FocalNetImageProcessor]:
    """A classifier in eval mode, and the processor that makes its inputs.

    Args:
        variant: name of a published model. With weights, only its architecture, class names and preset are taken.
        weights: whatever `load_checkpoint` takes. Without a variant, a folder or hub id with `config.json`.

    Raises:
        ValueError: neither is given.
        FileNotFoundError, CheckpointError: the weights cannot be had or do not fit.
    """
    source = variant or weights
    if source is None:
        raise ValueError("a variant, weights or both must be given")
    model = FocalNetForImageClassification.from_pretrained(weights or variant, config=read_config(source))
    return model, FocalNetImageProcessor.from_pretrained(source)


@torch.no_grad()
def top_classes(
    model: FocalNetForImageClassification, processor: FocalNetImageProcessor, image: Tensor, topk: int = 5
) -> list[tuple[str, float]]:
    """The most probable classes of an RGB image `(3, H, W)`, as names and probabilities, the best first."""
    if model.config.num_channels == 1:
        image = tvF.rgb_to_grayscale(image)
    pixel_values = processor(image, return_tensors="pt").pixel_values
    weight = model.norm.weight
    probabilities = model(pixel_values.to(weight.device, weight.dtype)).logits[0].float().softmax(-1)
    best = probabilities.topk(min(topk, len(probabilities)))
    return [(model.config.id2label[i], p) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
