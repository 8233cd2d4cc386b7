"""Training batches that are a function of the seed and the iteration alone, so that training can go on anywhere."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.data import DatasetFromList
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from focalnet_backbone.features.images import check_photo
from focalnet_backbone.system.interruption import leave_interrupts_to_parent


def derive_seed(*numbers: int) -> int:
    """A 32-bit seed mixed from several numbers, such as a run's seed, a process's rank and an iteration."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class BatchSampler(Sampler[list[tuple[int, int]]]):
    """Endless batches of `(position, index)` for this process: detectron2's endless shuffles, grouped.

    `position` counts the indices that the process has drawn, `index` is the place in the dataset.

    Args:
        groups: for each image, the group that it shares batches with.
        batch_size: images in a batch of this process.
        seed: seed of the shuffles, the same in all processes.
        start: number of batches to leave out, as they were trained on before.
    """

    def __init__(self, groups: Sequence[int], batch_size: int, seed: int, start: int = 0) -> None:
        self.groups = groups
        self.batch_size = batch_size
        self.seed = seed
        self.start = start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return itertools.islice(self._all_batches(), self.start, None)

    def _all_batches(self) -> Iterator[list[tuple[int, int]]]:
        waiting = defaultdict(list)
        for position, index in enumerate(TrainingSampler(len(self.groups), seed=self.seed)):
            batch = waiting[self.groups[index]]
            batch.append((position, index))
            if len(batch) == self.batch_size:
                yield waiting.pop(self.groups[index])


class PhotosOnly:
    """A mapper that is given nothing but photos, as its image library would open anything.

    Args:
        mapper: turns detectron2's dict of an image into what the model takes.
    """

    def __init__(self, mapper: Callable[[dict], Any]) -> None:
        self.mapper = mapper

    def __call__(self, sample: dict) -> Any:
        """What the mapper makes of an image. Raises `ValueError` if the file is no photo."""
        check_photo(sample["file_name"])
        return self.mapper(sample)


class SeededDataset(Dataset):
    """Mapped images by `(position, index)`, with augmentations drawn from the run's seed, the rank and the position.

    Args:
        dicts: detectron2's dataset dicts.
        mapper: turns one into what the model takes; draws from Python's and numpy's global generators.
        seed: seed of the run.
    """

    def __init__(self, dicts: list[dict], mapper: Callable[[dict], Any], seed: int) -> None:
        self.dicts = DatasetFromList(dicts, copy=False)
        self.mapper = PhotosOnly(mapper)
        self.seed = seed
        self.rank = comm.get_rank()

    def __getitem__(self, key: tuple[int, int]) -> Any:
        position, index = key
        seed = derive_seed(self.seed, self.rank, position)
        random.seed(seed)
        np.random.seed(seed)
        sample = self.dicts[index]
        try:
            return self.mapper(sample)
        except (OSError, SyntaxError, ValueError, MemoryError, Image.DecompressionBombError) as error:
            raise ValueError(f"cannot train on {sample['file_name']}: {error}") from error


def build_train_loader(
    dataset: list[dict],
    mapper: Callable[[dict], Any],
    total_batch_size: int,
    *,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
    seed: int = 0,
    start_iter: int = 0,
) -> DataLoader:
    """Endless batches (lists of mapped images), which are the same for the same seed, whatever `num_workers`.

    Args:
        dataset: detectron2's dataset dicts.
        mapper: turns one into what the model takes.
        total_batch_size: images an iteration, of all processes together.
        aspect_ratio_grouping: batch wide images and tall images apart, to save padding.
        num_workers: processes that load images; 0 loads them in this one.
        seed: seed of shuffles and augmentations.
        start_iter: the iteration to begin with.

    Raises `ValueError` if the processes cannot share `total_batch_size` evenly.
    """
    processes = comm.get_world_size()
    if total_batch_size < 1 or total_batch_size % processes:
        raise ValueError(f"the batch of {total_batch_size} images cannot be shared evenly by {processes} processes")
    groups = [int(aspect_ratio_grouping and image["width"] > image["height"]) for image in dataset]
    sampler = BatchSampler(groups, total_batch_size // processes, seed, start_iter)
    return DataLoader(
        SeededDataset(dataset, mapper, seed),
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=list,
        worker_init_fn=leave_interrupts_to_parent,
        # The workers' seeds would otherwise be drawn from torch's generator, which the model shares.
        generator=torch.Generator().manual_seed(seed),
    )


def detr_crop(
    min_sizes: Sequence[int] = (400, 500, 600),
    crop_size: tuple[int, int] = (384, 600),
    max_size: int = 1333,
    prob: float = 0.5,
) -> T.RandomApply:
    """The crop of DETR (arXiv 2005.12872), which comes before the resizing that an image gets anyway.

    With probability `prob`, the short side becomes one of `min_sizes` and the long side at most `max_size`, and a
    window is cropped whose sides are drawn from the range `crop_size`. All in pixels.
    """
    resize = T.ResizeShortestEdge(list(min_sizes), max_size, sample_style="choice")
    return T.RandomApply(T.AugmentationList([resize, T.RandomCrop("absolute_range", crop_size)]), prob)
