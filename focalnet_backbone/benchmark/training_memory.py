"""What memory the training of a config takes on a GPU: parameters, gradients, optimizer, and activations."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from mmengine.utils import import_modules_from_strings
from torch import Tensor, nn

from focalnet_backbone.benchmark.memory import saved_bytes
from focalnet_backbone.benchmark.whole_models import WholeModel
from focalnet_backbone.openmmlab.data import training_size
from focalnet_backbone.openmmlab.runners import load_config

GPU_SIZES = (8, 12, 16, 24, 32, 40, 48, 80, 96, 141)
"""Memory of GPUs that are sold, in GB."""

STATES = {"AdamW": 2, "Adam": 2, "SGD": 1, "RMSprop": 1}
"""Numbers that an optimizer keeps for each parameter; SGD with momentum."""

# Beside what is counted: CUDA's own, the libraries' workspaces, losses and matching, and memory in pieces.
RESERVE, SHARE = 1.0e9, 0.9


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of a training in float32.

    Attributes:
        parameters: of the model, with its buffers.
        gradients: of the parameters that are trained.
        optimizer: what the optimizer keeps.
        activations: what is kept of a batch for the backward pass.
        size: height and width of the images in pixels.
        batch_size: number of images on a GPU.
        optimizer_name: as in the config.
    """

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    size: tuple[int, int]
    batch_size: int
    optimizer_name: str

    @property
    def total(self) -> int:
        """All four."""
        return self.parameters + self.gradients + self.optimizer + self.activations

    @property
    def gpu(self) -> int | None:
        """The smallest GPU that has room for it, in GB; None if there is none."""
        needed = (self.total + RESERVE) / SHARE
        return next((size for size in GPU_SIZES if size * 1e9 >= needed), None)

    def __str__(self) -> str:
        height, width = self.size
        rows = {
            "parameters": self.parameters,
            "gradients": self.gradients,
            f"optimizer ({self.optimizer_name})": self.optimizer,
            f"activations ({self.batch_size} x {height}x{width})": self.activations,
            "together": self.total,
        }
        lines = [f"{name:<32}{value / 1e9:>8.2f} GB" for name, value in rows.items()]
        return "\n".join([*lines, f"{'a GPU of':<32}{f'{self.gpu} GB' if self.gpu else 'more than any has':>11}"])


def estimate(
    config: str | Path,
    *,
    size: tuple[int, int] | None = None,
    batch_size: int | None = None,
    options: dict[str, Any] | None = None,
    probes: tuple[int, int] | None = None,
) -> TrainingMemory:
    """What the training of a config of mmsegmentation or mmdetection takes.

    Activations are measured at two small sizes, on the CPU, and grow with the pixels from there, as all layers of these
    models do but those of a fixed number of queries or boxes. The losses are not counted.

    Args:
        config: a file.
        size: height and width of the images; by default as the config trains, 800x1333 where it does not tell.
        batch_size: of a GPU; by default the config's.
        options: values that replace the config's, such as `{"model.backbone.with_cp": True}`.
        probes: sides of the images that it is measured with, in pixels; by default 128 and 256, or the smallest that
            have a place for each query of a detector that chooses its queries among the places.

    Raises what `load_config` raises, and `ValueError` for an optimizer that is not known.
    """
    cfg = load_config(config, options)
    name = str(cfg.optim_wrapper.optimizer.type).rpartition(".")[2]
    if name not in STATES:
        raise ValueError(f"{config}: it is not known what {name} keeps; known are {', '.join(STATES)}")
    model = _build(cfg)
    size = size or training_size(cfg) or (800, 1333)
    batch_size = batch_size or cfg.train_dataloader.batch_size
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    tensors = [*model.parameters(), *model.buffers()]
    small, large = ((side * side, _kept(model, side)) for side in probes or _probes(model))
    growth = (large[1] - small[1]) / (large[0] - small[0])
    an_image = small[1] + growth * (size[0] * size[1] - small[0])
    return TrainingMemory(
        parameters=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        gradients=trained,
        optimizer=STATES[name] * trained,
        activations=round(batch_size * an_image),
        size=size,
        batch_size=batch_size,
        optimizer_name=name,
    )


def _build(cfg: Config) -> nn.Module:
    import_modules_from_strings(f"{cfg.default_scope}.models")
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = revert_sync_batchnorm(MODELS.build(copy.deepcopy(cfg.model)))
    # Heads that match queries to objects want none in this mode; of the backbone, all is kept that training keeps.
    model.eval()
    model.backbone.train()
    return model


def _probes(model: nn.Module) -> tuple[int, int]:
    if not getattr(model, "as_two_stage", False):
        return 128, 256
    # Places at stride 8; there are more at the others.
    side = max(128, 64 * math.ceil(8 * math.sqrt(model.num_queries) / 64))
    return side, side + 128


def _kept(model: nn.Module, side: int) -> int:
    images = torch.zeros(1, 3, side, side)
    return saved_bytes(model, lambda: predict(model, images))


def predict(model: nn.Module, images: Tensor) -> object:
    """What a detector or segmenter computes of images `(N, 3, H, W)` before its losses."""
    head = getattr(model, "panoptic_head", None) or getattr(model, "decode_head", None)
    if hasattr(model, "forward_transformer"):
        parts = model.forward_transformer(model.extract_feat(images), _samples(images))
        return model.bbox_head(**parts)
    if hasattr(head, "num_queries"):
        return head(model.extract_feat(images), _samples(images))
    return WholeModel(model)(images)


def _samples(images: Tensor) -> list[Any]:
    from mmdet.structures import DetDataSample

    shape = tuple(images.shape[2:])
    return [DetDataSample(metainfo={"img_shape": shape, "batch_input_shape": shape}) for _ in images]
