"""The feature maps of one photo, as a mapping that can be saved, loaded and drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from focalnet_backbone.system.files import whole_file
from focalnet_backbone.system.inputs import parse_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
            unfinished.write_bytes(_sort_header(serialize(tensors, metadata=header)))
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
            strides = parse_json(header["strides"])
            return cls({n: tensors[n] for n in strides}, strides, tensors[_IMAGE_KEY], parse_json(header["metadata"]))
        except (KeyError, TypeError, ValueError) as error:
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
            panel.imshow(principal_components(feature), extent=extent, interpolation="nearest")
            panel.set(xlim=(0, width), ylim=(height, 0))
            panel.set_title(f"{name}: {channels} x {rows} x {cols}, stride {stride}", fontsize=9)
        for panel in panels:
            panel.set_axis_off()
        return figure


def _sort_header(content: bytes) -> bytes:
    """A safetensors file's content with its header in one order, as the library's differs from call to call."""
    length = int.from_bytes(content[:8], "little")
    header = parse_json(content[8 : 8 + length])
    ordered = json.dumps(header, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    return content[:8] + ordered.ljust(length) + content[8 + length :]


def principal_components(feature: Tensor) -> np.ndarray:
    """The three principal components of a map `(C, H, W)` over its positions, as colours from 0 to 1: `(H, W, 3)`."""
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
