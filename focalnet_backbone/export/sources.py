"""What can be exported: a model with names for what goes in and comes out, and what its users must know of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from focalnet_backbone import __version__
from focalnet_backbone.configs import SUFFIXES, is_mmengine, list_configs, open_config
from focalnet_backbone.create import build_backbone, create_backbone
from focalnet_backbone.features.images import IMAGENET_MEAN, IMAGENET_STD
from focalnet_backbone.features.preparation import Preparation, PreparePhotos
from focalnet_backbone.models.classification import FocalNetForImageClassification
from focalnet_backbone.models.classify import load_classifier
from focalnet_backbone.models.image_processor import INTERPOLATIONS, FocalNetImageProcessor
from focalnet_backbone.network.backbone import FocalNet
from focalnet_backbone.network.variants import find_variant

INPUT = "images"
"""Name of the input: photos `(N, H, W, 3)`, uint8, or the network's own input `(N, 3, H, W)`, float."""


@dataclass
class Exportable:
    """A model to export.

    Attributes:
        module: maps the input to a tuple of tensors, in eval mode.
        outputs: their names.
        task: "features", "classification", "segmentation" or "detection".
        takes_photos: whether the input is `(N, H, W, 3)`, uint8, RGB, rather than `(N, 3, H, W)`, float, normalised.
        metadata: what else is told with the file, as JSON holds it.
        one_at_a_time: whether N is 1.
        channels: of an input that is no photo.
    """

    module: nn.Module
    outputs: tuple[str, ...]
    task: str
    takes_photos: bool
    metadata: dict[str, Any] = field(default_factory=dict)
    one_at_a_time: bool = False
    channels: int = 3

    def describe(self) -> dict[str, Any]:
        """The metadata that goes into the file."""
        return {
            "version": __version__,
            "task": self.task,
            "input": f"uint8 RGB ({'1' if self.one_at_a_time else 'N'}, H, W, 3)"
            if self.takes_photos
            else f"normalised float (N, {self.channels}, H, W)",
            "outputs": list(self.outputs),
            **self.metadata,
        }


class _Whole(nn.Module):
    """Preparation, if there is one, and a network whose outputs become a tuple."""

    def __init__(self, network: nn.Module, preparation: Preparation | None) -> None:
        super().__init__()
        self.prepare = None if preparation is None else PreparePhotos(preparation)
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = images if self.prepare is None else self.prepare(images)
        return self.read(self.network(x), images)

    def read(self, found: Any, images: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError


class _Features(_Whole):
    """The maps of a backbone, `(N, C_i, H_i, W_i)`, stem first."""

    def read(self, found: dict[str, Tensor], images: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.contiguous() for x in found.values())


class _Classification(_Whole):
    """Logits `(N, num_labels)`."""

    def read(self, found: Any, images: Tensor) -> tuple[Tensor, ...]:
        return (found.logits,)


def open_exportable(
    source: str, weights: str | None = None, *, backbone: bool = False, photos: bool | None = None
) -> Exportable:
    """What a user names, ready to be exported.

    Args:
        source: a config of a framework (a file, or a name of `focalnet list configs`), the name of a variant, or
            whatever `load_checkpoint` takes.
        weights: checkpoint of the whole model for a config; for a variant, None for the published ones.
        backbone: leave the head out.
        photos: whether the input is a photo's bytes; None for a model with a head only.

    Raises:
        CheckpointError: the weights cannot be had or do not fit.
        FileNotFoundError: there is no such file.
        ValueError: it cannot be exported; the message says why.
    """
    if _is_config(source) and not backbone:
        if weights is None:
            raise ValueError(f"{source} is a config: name the checkpoint of its model, too")
        exportable = _open_config(source, weights, photos is not False)
    elif backbone:
        if find_variant(source) is None:
            network = build_backbone(weights or source)
        else:
            network = create_backbone(source, weights=weights or "pretrained", out_indices=[1, 2, 3, 4])
        exportable = from_backbone(network, bool(photos))
    else:
        variant = find_variant(source)
        if variant is None and weights is not None:
            raise ValueError(f"{source} is neither a config nor a variant, so that {weights} has no place")
        classifier, processor = load_classifier(source if variant else None, weights if variant else source)
        exportable = from_classifier(classifier, processor, photos is not False)
    exportable.metadata["source"] = " ".join(filter(None, (Path(source).name, weights and Path(weights).name)))
    checkpoint = Path(weights or source)
    if checkpoint.is_file():
        exportable.metadata["sha256"] = _hash_file(checkpoint)
    return exportable


def _hash_file(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def from_backbone(network: FocalNet, photos: bool = False) -> Exportable:
    """A backbone: its maps by name. Photos are normalised by ImageNet's mean and deviation, and not resized.

    Raises `ValueError` for photos where the network takes another number of channels than three.
    """
    channels = network.config.num_channels
    if photos and channels != 3:
        raise ValueError(f"a network of {channels} channels takes no photos, which have 3; leave out --photo")
    how = Preparation(*(tuple(255 * value for value in values) for values in (IMAGENET_MEAN, IMAGENET_STD)))
    metadata = {"channels": network.channels, "strides": network.strides}
    if channels == 3:
        metadata |= {"mean": how.mean, "std": how.std}
    module = _Features(network, how if photos else None).eval()
    return Exportable(module, tuple(network.out_features), "features", photos, metadata, channels=channels)


def from_classifier(
    model: FocalNetForImageClassification, processor: FocalNetImageProcessor, photos: bool = True
) -> Exportable:
    """A classifier: `logits`. Photos are resized, cropped and normalised as its processor does.

    Raises `ValueError` if photos are asked for, and the processor does something that a file cannot hold.
    """
    channels = model.config.num_channels
    how = _prepare_like(processor, channels) if photos else None
    classes = [str(model.config.id2label[index]) for index in range(model.config.num_labels)]
    module = _Classification(model, how).eval()
    metadata = {"classes": classes, **_normalising(processor)}
    return Exportable(module, ("logits",), "classification", photos, metadata, channels=channels)


def _normalising(processor: FocalNetImageProcessor) -> dict[str, tuple[float, ...]]:
    """Mean and deviation of bytes, if the processor normalises."""
    if not (processor.do_rescale and processor.do_normalize):
        return {}
    named = {"mean": processor.image_mean, "std": processor.image_std}
    return {name: tuple(value / processor.rescale_factor for value in values) for name, values in named.items()}


def _prepare_like(processor: FocalNetImageProcessor, channels: int) -> Preparation:
    normalising = _normalising(processor)
    if not normalising or not len(normalising["mean"]) == channels == 3:
        raise ValueError(
            "only a processor that rescales and normalises three channels can be exported; --tensor does without"
        )
    mode = INTERPOLATIONS[processor.resample].value
    if mode not in ("bilinear", "bicubic"):
        raise ValueError(f"only bilinear and bicubic resizing can be exported, not {mode}; --tensor does without")
    size, crop = processor.size, processor.crop_size
    edge, target = size.get("shortest_edge"), (crop["height"], crop["width"])
    smallest = edge or min(size["height"], size["width"])
    if not processor.do_resize or (processor.do_center_crop and smallest < max(target)):
        raise ValueError("only a processor that resizes to at least its crop can be exported; --tensor does without")
    return Preparation(
        **normalising,
        edge=edge,
        stretch=None if edge else (size["height"], size["width"]),
        crop=target if processor.do_center_crop else None,
        mode=mode,
        antialias=True,
    )


def _is_config(source: str) -> bool:
    return source.endswith(SUFFIXES) or any(source in (name, Path(name).stem) for name in list_configs())


def _open_config(source: str, weights: str, photos: bool) -> Exportable:
    config = open_config(source)
    if not is_mmengine(config):
        return _open_detectron2(config, weights, photos)
    from focalnet_backbone.openmmlab.deploy import open_graph

    graph, metadata = open_graph(config, weights, photos)
    return Exportable(
        graph,
        graph.outputs,
        graph.task,
        photos,
        metadata,
        one_at_a_time=graph.one_at_a_time,
        channels=len(metadata.get("mean", "RGB")),
    )


def _open_detectron2(config: Path, weights: str, photos: bool) -> Exportable:
    from focalnet_backbone.detectron2.deploy import open_mask_rcnn

    if not photos:
        raise ValueError(f"{config.name}: a detector takes photos, whose size its boxes are in; leave out --tensor")
    graph, metadata = open_mask_rcnn(config, weights)
    return Exportable(graph, graph.outputs, "detection", True, metadata, one_at_a_time=True)
