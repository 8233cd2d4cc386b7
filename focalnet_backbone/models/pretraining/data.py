"""What masked image modeling is trained on: augmented crops of photographs, and masks over them.

Nothing here depends on what was drawn before: every crop and mask has a seed of its own, made of the run's seed and the
sample's number. So a run can go on from any step, with any number of processes and workers, as if it had never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision.transforms import v2

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def derive_seed(*numbers: int) -> int:
    """A 32-bit seed made of whole numbers, different for different ones."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def find_images(folder: str | Path) -> list[Path]:
    """The images in a folder and its subfolders, in a fixed order.

    Raises `FileNotFoundError` if there is no such folder or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise FileNotFoundError(f"no image ({', '.join(SUFFIXES)}) in {folder} or below")
    return paths


def load_image(path: str | Path, mode: str = "RGB") -> Image.Image:
    """Read an image file, turned upright as its EXIF tag says.

    Raises `FileNotFoundError` if there is none, and `ValueError` if it is no readable image.
    """
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert(mode)
    except FileNotFoundError:
        raise FileNotFoundError(f"no image at {path}") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a readable image: {error}") from error


def block_mask(
    size: tuple[int, int], patch_size: int, block_size: int, ratio: float, generator: torch.Generator | None = None
) -> Tensor:
    """Mask random square blocks of an image (SimMIM, section 3.2).

    Args:
        size: (height, width) of the image in pixels, multiples of `block_size`.
        patch_size: side of the model's patches in pixels.
        block_size: side of a block in pixels, a multiple of `patch_size`.
        ratio: part of the blocks to mask, rounded up to whole blocks.
        generator: source of randomness.

    Returns:
        `(L,)`, true for the masked ones of the image's L patches.
    """
    rows, columns = size[0] // block_size, size[1] // block_size
    mask = torch.zeros(rows * columns, dtype=torch.bool)
    mask[torch.randperm(rows * columns, generator=generator)[: math.ceil(rows * columns * ratio)]] = True
    scale = block_size // patch_size
    return mask.view(rows, columns).repeat_interleave(scale, 0).repeat_interleave(scale, 1).flatten()


class MaskedImages(Dataset):
    """Crops of images with masks, as SimMIM (section 4.1) augments: random resized crop and horizontal flip.

    Indexed by `(image, seed)`, it gives `{"pixel_values": (C, H, W), "bool_masked_pos": (L,)}`.

    Args:
        paths: image files.
        size: (height, width) of the crops in pixels.
        mean: of the pixels (0 to 1), one a channel; one channel means greyscale, three RGB.
        std: likewise.
        patch_size: side of the model's patches in pixels.
        block_size: side of the masked blocks in pixels.
        mask_ratio: part of the blocks to mask.
    """

    def __init__(
        self,
        paths: list[Path],
        size: tuple[int, int],
        mean: list[float],
        std: list[float],
        *,
        patch_size: int,
        block_size: int,
        mask_ratio: float,
    ) -> None:
        self.paths = paths
        self.size = size
        self.mode = "L" if len(mean) == 1 else "RGB"
        self.patch_size, self.block_size, self.mask_ratio = patch_size, block_size, mask_ratio
        self.augment = v2.Compose(
            [
                v2.RandomResizedCrop(size, scale=(0.67, 1.0), ratio=(3 / 4, 4 / 3), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        index, seed = key
        image = load_image(self.paths[index], self.mode)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pixel_values = self.augment(image).as_subclass(Tensor)
            mask = block_mask(self.size, self.patch_size, self.block_size, self.mask_ratio)
        return {"pixel_values": pixel_values, "bool_masked_pos": mask}


class StepSampler(Sampler[list[tuple[int, int]]]):
    """Batches of `(image, seed)` for steps `start` to `stop`, each image once an epoch, in an order of its own.

    Batches run on over the end of an epoch, so all have the same size.

    Args:
        images: number of images.
        batch_size: samples a step, over all processes.
        start: first step.
        stop: the step after the last one.
        seed: of the run.
        rank: number of this process, which takes its part of each batch.
        processes: number of processes; divides `batch_size`.
    """

    def __init__(
        self, images: int, batch_size: int, start: int, stop: int, *, seed: int, rank: int = 0, processes: int = 1
    ) -> None:
        self.images, self.batch_size, self.start, self.stop, self.seed = images, batch_size, start, stop, seed
        self.part = range(batch_size // processes * rank, batch_size // processes * (rank + 1))

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = None, []
        for step in range(self.start, self.stop):
            batch = []
            for number in (step * self.batch_size + i for i in self.part):
                if number // self.images != epoch:
                    epoch = number // self.images
                    order = self._order(epoch)
                batch.append((order[number % self.images], derive_seed(self.seed, 1, number)))
            yield batch

    def _order(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, 0, epoch))
        return torch.randperm(self.images, generator=generator).tolist()
