"""What a config asks for, in one form for both of detectron2's config systems."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.evaluation import DatasetEvaluator
from detectron2.solver import LRMultiplier
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from focalnet_backbone.detectron2.datasets import CocoDataset, check_registered
from focalnet_backbone.detectron2.own_datasets import register_own
from focalnet_backbone.system.devices import choose_device


class Job(ABC):
    """A config, loaded.

    Attributes:
        output_dir: folder for checkpoints and logs.
        weights: what the training starts from, as `FocalNetCheckpointer.load` takes it.
        device: "cuda" or "cpu".
        seed: seed of everything random; negative for a new one each time.
        max_iter: iterations of the training.
        batch_size: images an iteration, of all processes together.
        mixed_precision: whether to train in float16 where that is safe.
        checkpoint_period, eval_period, log_period: iterations between checkpoints, evaluations, lines of the log.
        max_to_keep: number of periodic checkpoints to keep; None keeps them all.
        best_metric: metric by which the best checkpoint is kept.
        ddp: options for `DistributedDataParallel`.
        notes: lines on what was set for a user's own data.
    """

    output_dir: str
    weights: str
    device: str
    seed: int
    max_iter: int
    batch_size: int
    mixed_precision: bool
    checkpoint_period: int
    eval_period: int
    log_period: int = 20
    max_to_keep: int | None = None
    best_metric: str = "bbox/AP"
    device_hint: str
    semantic_hint: str
    ddp: dict[str, Any]
    notes: Sequence[str] = ()

    @property
    @abstractmethod
    def train_names(self) -> list[str]:
        """Names of the datasets to train on."""

    @property
    @abstractmethod
    def test_names(self) -> list[str]:
        """Names of the datasets to evaluate on."""

    @property
    @abstractmethod
    def masks(self) -> bool:
        """Whether the model learns masks."""

    @property
    @abstractmethod
    def keypoints(self) -> bool:
        """Whether the model learns keypoints."""

    @property
    @abstractmethod
    def mask_format(self) -> str:
        """The form of the training masks: "polygon" or "bitmask"."""

    @property
    @abstractmethod
    def image_format(self) -> str:
        """Channels of the images, as detectron2's `read_image` takes it."""

    @property
    @abstractmethod
    def classes(self) -> int | None:
        """The number of classes that the model has; None if the config does not tell."""

    @property
    @abstractmethod
    def classes_key(self) -> str:
        """The key of the config that has it."""

    def use_datasets(self, train: CocoDataset | None, val: CocoDataset | None) -> None:
        """Put datasets in the place of the config's, and fit the number of classes and the mask format to them."""
        splits = {name: dataset for name, dataset in (("train", train), ("val", val)) if dataset}
        self.use_own({name: {"images": str(d.images), "annotations": str(d.annotations)} for name, d in splits.items()})
        if train and train.masks:
            self._set_mask_format(train.masks)
        self.set_classes(len((train or val).categories))

    def use_own(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Put datasets in the place of the config's, and write down there what they are.

        Args:
            entries: by "train" and "val", what `register_own` takes.

        Raises `FileNotFoundError` or `ValueError` if photos or labels are missing.
        """
        names = {split: register_own(entry) for split, entry in entries.items()}
        self._set_datasets(names.get("train"), names.get("val"))
        self._write_down([dict(entry) for entry in entries.values()])

    @abstractmethod
    def _write_down(self, entries: list[dict[str, Any]]) -> None:
        """Keep in the config what `register_own` is told when the config is loaded again."""

    @property
    @abstractmethod
    def is_semantic(self) -> bool:
        """Whether the model tells the class of each pixel, and no objects."""

    @abstractmethod
    def set_size(self, size: tuple[int, int]) -> None:
        """Bring the sizes of photos, in training and in tests, to about this width and height in pixels."""

    @abstractmethod
    def _set_datasets(self, train: str | None, val: str | None) -> None:
        """Name the datasets; with a training set but no validation set, nothing is evaluated."""

    @abstractmethod
    def _set_mask_format(self, mask_format: str) -> None:
        """Set the form of the training masks: "polygon" or "bitmask"."""

    @abstractmethod
    def set_classes(self, number: int) -> None:
        """Set the number of classes."""

    @abstractmethod
    def model(self) -> nn.Module:
        """A new model on the device."""

    @abstractmethod
    def optimizer(self, model: nn.Module) -> Optimizer:
        """A new optimizer for the model."""

    @abstractmethod
    def scheduler(self, optimizer: Optimizer) -> LRMultiplier:
        """A new learning rate schedule for the optimizer."""

    @abstractmethod
    def train_loader(self, seed: int, start_iter: int) -> Iterable:
        """Endless batches from an iteration on."""

    @abstractmethod
    def train_mapper(self) -> Callable[[dict], dict]:
        """What turns detectron2's dict of an image into an augmented sample."""

    @abstractmethod
    def test_mapper(self) -> Callable[[dict], dict]:
        """What turns `{"file_name": path}` into the model's input."""

    @abstractmethod
    def test_loader(self, name: str) -> DataLoader:
        """The images of a dataset, once."""

    @abstractmethod
    def evaluator(self, name: str) -> DatasetEvaluator:
        """COCO's evaluation on a dataset of objects, that of semantic segmentation on one of label images."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write the config, with everything that was put into it."""

    def check(self, *, train: bool) -> None:
        """Check what would otherwise fail only after the model is built.

        Raises:
            FileNotFoundError: a dataset is not there.
            ValueError: a dataset is unknown, none is named, there is no such device, or a number is out of range.
        """
        for name in ("max_iter", "batch_size", "checkpoint_period", "log_period"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value}")
        needed = (self.train_names if train else []) + self.test_names
        if not needed:
            raise ValueError("the config names no dataset")
        check_registered(needed)
        try:
            choose_device(self.device)
        except ValueError as error:
            raise ValueError(f"the config's {error}; {self.device_hint}") from error
