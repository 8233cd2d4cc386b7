"""What masked image modeling is trained on: augmented crops of photographs, and masks over them.

Nothing here depends on what was drawn before: every crop and mask has a seed of its own, made of the run's seed and the
sample's number. So a run can go on from any step, with any number of processes and workers, as if it had never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision.transforms import v2

from focalnet_backbone.features.images import IMAGENET_MEAN, IMAGENET_STD, load_image
from focalnet_backbone.models.pretraining.recipe import Recipe
from focalnet_backbone.network.config import FocalNetConfig


def derive_seed(*numbers: int) -> int:
    """A 32-bit seed made of whole numbers; torch's generator on the CPU looks at no more bits."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def pixel_statistics(num_channels: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of ImageNet's pixels (0 to 1), one a channel; for greyscale, their means.

    Raises `ValueError` for another number of channels than 3 and 1.
    """
    if num_channels == 3:
        return list(IMAGENET_MEAN), list(IMAGENET_STD)
    if num_channels == 1:
        return [float(np.mean(IMAGENET_MEAN))], [float(np.mean(IMAGENET_STD))]
    raise ValueError(f"num_channels must be 3 (RGB) or 1 (greyscale) to train on photographs, got {num_channels}")


def block_mask(image_size: int, patch_size: int, block_size: int, ratio: float) -> Tensor:
    """Mask random square blocks of a square image (SimMIM, section 3.2).

    Args:
        image_size: side of the image in pixels, a multiple of `block_size`.
        patch_size: side of the model's patches in pixels.
        block_size: side of a block in pixels, a multiple of `patch_size`.
        ratio: part of the blocks to mask, rounded up to whole blocks.

    Returns:
        `(L,)`, true for the masked ones of the image's L patches.
    """
    side, scale = image_size // block_size, block_size // patch_size
    mask = torch.zeros(side * side, dtype=torch.bool)
    mask[torch.randperm(side * side)[: math.ceil(side * side * ratio)]] = True
    return mask.view(side, side).repeat_interleave(scale, 0).repeat_interleave(scale, 1).flatten()


class MaskedImages(Dataset):
    """Crops of images with masks, as SimMIM (section 4.1) augments: random resized crop and horizontal flip.

    Indexed by `(image, seed)`, it gives `{"pixel_values": (C, H, W), "bool_masked_pos": (L,)}`.

    Args:
        paths: image files.
        config: of the model.
        recipe: sizes of crops and masks.
    """

    def __init__(self, paths: list[Path], config: FocalNetConfig, recipe: Recipe) -> None:
        self.paths = paths
        self.mask = partial(block_mask, recipe.image_size, config.patch_size, recipe.mask_block, recipe.mask_ratio)
        mean, std = pixel_statistics(config.num_channels)
        self.augment = v2.Compose(
            [
                *([v2.Grayscale()] if config.num_channels == 1 else []),
                v2.RandomResizedCrop(recipe.image_size, scale=(0.67, 1.0), ratio=(3 / 4, 4 / 3), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        index, seed = key
        image = load_image(self.paths[index])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return {"pixel_values": self.augment(image), "bool_masked_pos": self.mask()}


class StepSampler(Sampler[list[tuple[int, int]]]):
    """Batches of `(image, seed)` for the steps from `start` on, each image once an epoch, in an order of its own.

    Batches run on over the end of an epoch, so all have the same size.

    Args:
        images: number of images.
        recipe: batch size, seed and last step.
        start: first step.
        rank: number of this process, which takes its part of each batch.
        processes: number of processes.

    Raises:
        ValueError: the batch cannot be divided among the processes.
    """

    def __init__(self, images: int, recipe: Recipe, start: int = 0, rank: int = 0, processes: int = 1) -> None:
        if recipe.batch_size % processes:
            raise ValueError(f"batch_size {recipe.batch_size} must be a multiple of the {processes} processes")
        self.images, self.recipe = images, recipe
        self.steps = range(start, recipe.steps)
        share = recipe.batch_size // processes
        self.part = range(share * rank, share * (rank + 1))

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = None, []
        for step in self.steps:
            batch = []
            for number in (step * self.recipe.batch_size + i for i in self.part):
                if number // self.images != epoch:
                    epoch = number // self.images
                    order = self._order(epoch)
                batch.append((order[number % self.images], derive_seed(self.recipe.seed, 1, number)))
            yield batch

    def _order(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(derive_seed(self.recipe.seed, 0, epoch))
        return torch.randperm(self.images, generator=generator).tolist()
