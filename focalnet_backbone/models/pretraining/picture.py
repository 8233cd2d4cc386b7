"""Pictures of what a masked image model makes of images."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from focalnet_backbone.models.masked_modeling import FocalNetForMaskedImageModeling, pixel_mask
from focalnet_backbone.models.pretraining.data import pixel_statistics


@torch.no_grad()
def draw_reconstructions(model: FocalNetForMaskedImageModeling, batch: dict[str, Tensor]) -> Image.Image:
    """A row for each image: the image, with its masked patches grey, and with them as the model fills them in.

    Args:
        model: its mode is as before afterwards.
        batch: normalised `pixel_values (N, C, H, W)` and `bool_masked_pos (N, L)`.
    """
    was_training = model.training
    device = next(model.parameters()).device
    pixels = batch["pixel_values"].to(device)
    bool_masked_pos = batch["bool_masked_pos"].to(device)
    reconstruction = model.eval()(pixels, bool_masked_pos).reconstruction
    model.train(was_training)

    mask = pixel_mask(bool_masked_pos, pixels.shape[2], pixels.shape[3], model.config.patch_size)
    statistics = pixel_statistics(model.config.num_channels)
    mean, std = (torch.tensor(x, device=device).view(-1, 1, 1) for x in statistics)
    image, filled = (x * std + mean for x in (pixels, torch.where(mask, reconstruction, pixels)))
    columns = torch.stack([image, image.masked_fill(mask, 0.5), filled], dim=1).flatten(0, 1)
    grid = make_grid(columns.clamp(0, 1), nrow=3, padding=4, pad_value=1.0)
    return Image.fromarray((grid * 255).round().byte().permute(1, 2, 0).cpu().numpy())
