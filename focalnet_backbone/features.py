"""Feature pyramids: photos in, named feature maps and pictures out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.ops import FeaturePyramidNetwork

from focalnet_backbone.backbone import FocalNet
from focalnet_backbone.files import whole_file
from focalnet_backbone.images import (
    ImageLike,
    find_images,
    group_by_size,
    limit_size,
    load_image,
    normalize,
    to_rgb,
    to_uint8,
)
from focalnet_backbone.interruption import leave_interrupts_to_parent
from focalnet_backbone.variants import create_backbone, get_variant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""Types that a `FeatureExtractor` computes in."""
_FORMAT = "focalnet-backbone feature pyramid"
_IMAGE_KEY = "image"


class FeaturePyramid(Mapping[str, Tensor]):
    """The feature maps of one image: a read-only mapping from name to tensor `(C, H_i, W_i)`.

    Attributes:
        image: the photo as the network saw it, uint8 `(3, H, W)`.
        strides: stride of each map in pixels of that image, by name.
        metadata: what was noted along with it, for example the source; strings by name.
    """

    def __init__(
        self,
        features: Mapping[str, Tensor],
        strides: Mapping[str, int],
        image: Tensor,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self._features = dict(features)
        self.strides = dict(strides)
        self.image = image
        self.metadata = dict(metadata or {})

    @property
    def channels(self) -> dict[str, int]:
        """Channels of each map, by name."""
        return {name: feature.shape[0] for name, feature in self.items()}

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels of the image that the network saw."""
        return tuple(self.image.shape[-2:])

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._features:
            raise KeyError(f"no feature map {name!r}; there are {list(self._features)}")
        return self._features[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._features)

    def __len__(self) -> int:
        return len(self._features)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {tuple(feature.shape)}" for name, feature in self.items())
        return f"FeaturePyramid({shapes}, image_size={self.image_size})"

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file: the maps by name, the image, and all else in its metadata.

        The file appears whole or not at all. Returns its path.
        """
        path = Path(path)
        tensors = {**self._features, _IMAGE_KEY: self.image}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        header = {"format": _FORMAT, "strides": json.dumps(self.strides), "metadata": json.dumps(self.metadata)}
        # Not by `save_file`, which ignores the umask and raises no OSError when the disk is full.
        with whole_file(path) as unfinished:
            unfinished.write_bytes(serialize(tensors, metadata=header))
        return path

    @classmethod
    def load(cls, path: str | Path) -> FeaturePyramid:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no feature pyramid, or a broken one.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no feature pyramid at {path}")
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is no whole safetensors file: {error}") from error
        if header.get("format") != _FORMAT:
            raise ValueError(f"{path} holds no feature pyramid, but {sorted(tensors)[:5]}")
        try:
            strides = json.loads(header["strides"])
            return cls({n: tensors[n] for n in strides}, strides, tensors[_IMAGE_KEY], json.loads(header["metadata"]))
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path} holds a damaged feature pyramid: {error!r}") from error

    def plot(self) -> Figure:
        """Draw the photo and one panel a map: its three principal components over the positions as RGB."""
        from matplotlib.figure import Figure

        height, width = self.image_size
        columns = 1 + len(self)
        # matplotlib refuses pictures of more than 2**16 pixels, so very tall photos get narrow panels.
        figure = Figure(figsize=(3 * columns, 3 * min(height / width, 5) + 0.6), layout="constrained")
        panels = figure.subplots(1, columns, squeeze=False)[0]
        panels[0].imshow(self.image.permute(1, 2, 0).cpu().numpy())
        panels[0].set_title(f"image, {width}x{height} px", fontsize=9)
        for panel, (name, feature) in zip(panels[1:], self.items(), strict=True):
            channels, rows, cols = feature.shape
            stride = self.strides[name]
            # Drawn in the image's coordinates: the last row and column may reach beyond it.
            extent = (0, cols * stride, rows * stride, 0)
            panel.imshow(_principal_components(feature), extent=extent, interpolation="nearest")
            panel.set(xlim=(0, width), ylim=(height, 0))
            panel.set_title(f"{name}: {channels} x {rows} x {cols}, stride {stride}", fontsize=9)
        for panel in panels:
            panel.set_axis_off()
        return figure


def _principal_components(feature: Tensor) -> np.ndarray:
    """The three strongest components of `(C, H, W)` over its positions, scaled to 0 to 1: `(H, W, 3)`."""
    flat = feature.detach().flatten(1).double().cpu()
    flat = flat - flat.mean(1, keepdim=True)
    # Eigenvectors are defined up to their sign: fix it, so that equal features give equal pictures.
    vectors = torch.linalg.eigh(flat @ flat.T).eigenvectors[:, -3:].flip(1)
    vectors = vectors * torch.where(vectors.sum(0) < 0, -1.0, 1.0)
    components = vectors.T @ flat
    components = torch.cat([components, components.new_zeros(3 - len(components), components.shape[1])])
    low, high = components.quantile(torch.tensor([0.01, 0.99], dtype=torch.double), dim=1, keepdim=True)
    scaled = ((components - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    return scaled.reshape(3, *feature.shape[1:]).permute(1, 2, 0).numpy()


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
            device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        elif isinstance(model_or_variant, FocalNet):
            model = model_or_variant
            if out_features is not None and list(out_features) != model.out_features:
                raise ValueError(f"out_features={list(out_features)}, but the model returns {model.out_features}")
            if weights is not None:
                from focalnet_backbone.checkpoints import load_checkpoint

                load_checkpoint(model, weights)
        else:
            raise TypeError(f"expected a variant's name or a FocalNet, got {type(model_or_variant).__name__}")
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
        paths = find_images(paths) if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
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
            pyramids = self._extract([image for _, image in readable], batch_size)
            for (path, _), pyramid in zip(readable, pyramids, strict=True):
                pyramid.metadata["source"] = str(path)
                yield pyramid

    @torch.no_grad()
    def _extract(self, images: list[Tensor], batch_size: int) -> list[FeaturePyramid]:
        pyramids: list[FeaturePyramid | None] = [None] * len(images)
        for group in group_by_size(images):
            for start in range(0, len(group), batch_size):
                indices = group[start : start + batch_size]
                batch = torch.stack([images[i] for i in indices]).to(self.device)
                features = self.model(normalize(batch, self.dtype))
                if self.fpn is not None:
                    features = self.fpn(features)
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


def _build(variant: str, weights: Any, out_features: Sequence[str] | None) -> FocalNet:
    if out_features is None:
        out_features = get_variant(variant).config().stage_names[1:]
    return create_backbone(variant, weights=weights, out_features=out_features)


def _check_positive(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an int of at least 1, got {value!r}")
