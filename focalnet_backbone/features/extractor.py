"""Photos to feature pyramids, by a network of one's choice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.ops import FeaturePyramidNetwork

from focalnet_backbone.checkpoints import load_checkpoint
from focalnet_backbone.create import create_backbone
from focalnet_backbone.features.images import (
    ImageLike,
    find_images,
    group_by_size,
    limit_size,
    load_image,
    normalize,
    stack_images,
    to_rgb,
    to_uint8,
)
from focalnet_backbone.features.pyramid import FeaturePyramid
from focalnet_backbone.network.backbone import FocalNet
from focalnet_backbone.network.config import FocalNetConfig
from focalnet_backbone.system.command_line import is_out_of_memory
from focalnet_backbone.system.devices import choose_device
from focalnet_backbone.system.interruption import leave_interrupts_to_parent

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""Types that a `FeatureExtractor` computes in."""


class FeatureExtractor:
    """Photos to feature pyramids, with one of the published models or a backbone of your own.

    Args:
        model_or_variant: a variant's name (see `list_variants`), or a `FocalNet`, which is moved to `device` and
            `dtype` and set to eval mode.
        weights: None for the weights as they are (random for a variant), or whatever `create_backbone` takes.
        out_features: names of the maps; all stages by default, and for a `FocalNet` those that it returns.
        device: where to compute; by default where the `FocalNet` is, or the GPU if there is one.
        dtype: type to compute in; by default the model's own.
        max_size: images whose longer side has more pixels are shrunk to that.
        with_fpn: channels of a torchvision FeaturePyramidNetwork on top (`.fpn`, random weights), or None for none.

    Raises:
        KeyError, ValueError, TypeError: an argument is wrong; the message says what is allowed.
        CheckpointError: the weights cannot be had or do not fit.
    """

    def __init__(
        self,
        model_or_variant: str | FocalNet,
        *,
        weights: Any = None,
        out_features: Sequence[str] | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        max_size: int | None = None,
        with_fpn: int | None = None,
    ) -> None:
        for name, value in (("max_size", max_size), ("with_fpn", with_fpn)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be a positive int or None, got {value!r}")
        if dtype is not None and dtype not in DTYPES:
            raise TypeError(f"dtype must be one of {', '.join(map(str, DTYPES))}, got {dtype!r}")
        if isinstance(model_or_variant, str):
            model = _build(model_or_variant, weights, out_features)
            device = choose_device(device)
        elif isinstance(model_or_variant, FocalNet):
            model = model_or_variant
            if out_features is not None and list(out_features) != model.out_features:
                raise ValueError(f"out_features={list(out_features)}, but the model returns {model.out_features}")
            if weights is not None:
                load_checkpoint(model, weights)
        else:
            raise TypeError(f"expected a variant's name or a FocalNet, got {type(model_or_variant).__name__}")
        device = None if device is None else choose_device(device)
        self.model = model.to(device=device, dtype=dtype).eval()
        self.max_size = max_size
        self.fpn = None
        if with_fpn is not None:
            self.fpn = FeaturePyramidNetwork(list(model.channels.values()), with_fpn).to(self.device, self.dtype).eval()

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.patch_embed.proj.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type that it computes in."""
        return self.model.patch_embed.proj.weight.dtype

    def __call__(
        self, images: ImageLike | Sequence[ImageLike], *, batch_size: int = 8
    ) -> FeaturePyramid | list[FeaturePyramid]:
        """The pyramid of an image, or a list of them for a list of images of any sizes.

        Args:
            images: a path, PIL image, numpy array (uint8 `(H, W, 3)`), tensor (`(3, H, W)`, uint8 or floats in
                0 to 1), or a list of these.
            batch_size: how many images of one size go through the network at once.

        Raises:
            TypeError, ValueError, FileNotFoundError: an image is none of these, or cannot be read.
        """
        _check_positive("batch_size", batch_size)
        if isinstance(images, (list, tuple)):
            return self._extract([limit_size(to_rgb(image), self.max_size) for image in images], batch_size)
        return self._extract([limit_size(to_rgb(images), self.max_size)], batch_size)[0]

    @torch.no_grad()
    def features(self, images: Tensor) -> dict[str, Tensor]:
        """The maps of a batch of images of one size, RGB `(N, 3, H, W)`: `(N, C, H_i, W_i)` by name."""
        features = self.model(normalize(images.to(self.device, non_blocking=images.is_pinned()), self.dtype))
        return features if self.fpn is None else self.fpn(features)

    def stream(
        self,
        paths: str | Path | Iterable[str | Path],
        *,
        batch_size: int = 8,
        num_workers: int = 0,
        on_error: Callable[[Path, Exception], None] | None = None,
    ) -> Iterator[FeaturePyramid]:
        """Yield the pyramid of each image file, in order, holding no more than `batch_size` of them at once.

        The file's path is in the pyramid's `metadata["source"]`.

        Args:
            paths: a folder, whose image files are found recursively, or the files.
            batch_size: how many files are taken at once; those of one size go through the network together.
            num_workers: processes that read files ahead; 0 reads in this one.
            on_error: called with the path and the error of a file that cannot be read, which is then left out;
                None raises the error.

        Raises:
            FileNotFoundError, ValueError: a file is not there or no image, unless `on_error` takes it.
        """
        _check_positive("batch_size", batch_size)
        if isinstance(num_workers, bool) or not isinstance(num_workers, int) or num_workers < 0:
            raise ValueError(f"num_workers must be an int of at least 0, got {num_workers!r}")
        paths = find_images(paths, on_error) if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
        dataset = _ImageFiles(paths, self.max_size)
        loader = DataLoader(
            dataset,
            batch_size=batch_size,
            num_workers=num_workers,
            collate_fn=list,
            worker_init_fn=leave_interrupts_to_parent,
        )
        for batch in loader:
            readable = []
            for path, image, error in batch:
                if error is None:
                    readable.append((path, image))
                elif on_error is None:
                    raise error
                else:
                    on_error(path, error)
            for path, pyramid in self._extract_sparing(readable, batch_size, on_error):
                pyramid.metadata["source"] = str(path)
                yield pyramid

    def _extract_sparing(
        self,
        photos: list[tuple[Path, Tensor]],
        batch_size: int,
        on_error: Callable[[Path, Exception], None] | None,
    ) -> Iterator[tuple[Path, FeaturePyramid]]:
        """The photos' pyramids; where the memory is not enough for all at once, one by one."""
        try:
            pyramids = self._extract([image for _, image in photos], batch_size)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or (len(photos) == 1 and on_error is None):
                raise
            pyramids = None
        # Outside of the handler, as the error holds on to what filled the memory.
        if pyramids is not None:
            yield from zip((path for path, _ in photos), pyramids, strict=True)
        elif len(photos) > 1:
            for photo in photos:
                yield from self._extract_sparing([photo], batch_size, on_error)
        else:
            ((path, image),) = photos
            size = "x".join(map(str, image.shape[-2:]))
            on_error(path, MemoryError(f"the memory is not enough for {path} ({size} pixels); see --max-size"))

    @torch.no_grad()
    def _extract(self, images: list[Tensor], batch_size: int) -> list[FeaturePyramid]:
        pyramids: list[FeaturePyramid | None] = [None] * len(images)
        for group in group_by_size(images):
            for start in range(0, len(group), batch_size):
                indices = group[start : start + batch_size]
                features = self.features(stack_images([images[i] for i in indices], self.device))
                for row, i in enumerate(indices):
                    # A map of its own for each image, so that keeping one does not keep the whole batch. The
                    # photo's copy stays what it was when the caller uses the array for the next one.
                    maps = {name: feature[row].clone() for name, feature in features.items()}
                    pyramids[i] = FeaturePyramid(maps, self.model.strides, to_uint8(images[i]).clone())
        return pyramids


class _ImageFiles(Dataset):
    """Image files as (path, image, error), one of the last two None, so that a bad file stops no batch."""

    def __init__(self, paths: list[Path], max_size: int | None) -> None:
        self.paths = paths
        self.max_size = max_size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Path, Tensor | None, Exception | None]:
        path = self.paths[index]
        try:
            return path, limit_size(load_image(path), self.max_size), None
        except (OSError, ValueError) as error:
            return path, None, error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return path, None, MemoryError(f"the memory is not enough to read {path}")


def _build(variant: str, weights: Any, out_features: Sequence[str] | None) -> FocalNet:
    if out_features is None:
        out_features = FocalNetConfig.from_variant(variant).stage_names[1:]
    return create_backbone(variant, weights=weights, out_features=out_features)


def _check_positive(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an int of at least 1, got {value!r}")
