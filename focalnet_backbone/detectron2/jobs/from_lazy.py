"""Jobs from detectron2's LazyConfig."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig, instantiate
from detectron2.evaluation import DatasetEvaluator
from detectron2.solver import LRMultiplier
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from focalnet_backbone.detectron2.jobs.job import Job
from focalnet_backbone.detectron2.loader import PhotosOnly, build_train_loader
from focalnet_backbone.detectron2.own_datasets import evaluator_of, register_own
from focalnet_backbone.system.command_line import first_line

LAZY_MARK = "# The values of the LazyConfig "
"""What a `config.yaml` begins with that `LazyJob.save` wrote; the path of the config follows."""


class LazyJob(Job):
    """A job from a LazyConfig with `model`, `optimizer`, `lr_multiplier`, `dataloader` and `train`, as detectron2's.

    Args:
        config: path of a Python file.
        overrides: `key=value` for the config.
    """

    device_hint = "append train.device=cpu"
    semantic_hint = "take the config of one"

    def __init__(self, config: str | Path, overrides: Sequence[str] = ()) -> None:
        self.source = Path(config).resolve()
        self.cfg = load_lazy(config, overrides)
        try:
            self._read(self.cfg.train)
        except OmegaConfBaseException as error:
            raise ValueError(f"{config}: {first_line(error)}") from error

    def _read(self, train: DictConfig) -> None:
        self.output_dir = train.output_dir
        self.weights = train.init_checkpoint
        self.device = train.device
        self.seed = train.get("seed", -1)
        self.max_iter = train.max_iter
        self.batch_size = self.cfg.dataloader.train.total_batch_size
        self.mixed_precision = train.amp.enabled
        self.checkpoint_period = train.checkpointer.period
        self.max_to_keep = train.checkpointer.get("max_to_keep")
        self.eval_period = train.eval_period
        self.log_period = train.log_period
        self.best_metric = train.get("best_metric", self.best_metric)
        self.ddp = OmegaConf.to_container(train.ddp)
        for entry in OmegaConf.to_container(self.cfg.dataloader.get("own") or OmegaConf.create([])):
            register_own(entry)

    @property
    def train_names(self) -> list[str]:
        """`dataloader.train.dataset.names`."""
        return _as_list(self.cfg.dataloader.train.dataset.names)

    @property
    def test_names(self) -> list[str]:
        """`dataloader.test.dataset.names`."""
        return _as_list(self.cfg.dataloader.test.dataset.names)

    @property
    def masks(self) -> bool:
        """`dataloader.train.mapper.use_instance_mask`."""
        return self.cfg.dataloader.train.mapper.get("use_instance_mask", False)

    @property
    def keypoints(self) -> bool:
        """`dataloader.train.mapper.use_keypoint`."""
        return self.cfg.dataloader.train.mapper.get("use_keypoint", False)

    @property
    def mask_format(self) -> str:
        """`dataloader.train.mapper.instance_mask_format`."""
        return self.cfg.dataloader.train.mapper.get("instance_mask_format", "polygon")

    @property
    def image_format(self) -> str:
        """`dataloader.train.mapper.image_format`."""
        return self.cfg.dataloader.train.mapper.get("image_format", "BGR")

    @property
    def classes(self) -> int | None:
        """`num_classes` of the RoI heads, or of a one-stage detector."""
        return self.cfg.model.get("roi_heads", self.cfg.model).get("num_classes")

    @property
    def classes_key(self) -> str:
        """`model.roi_heads.num_classes` or `model.num_classes`."""
        return "model.roi_heads.num_classes" if "roi_heads" in self.cfg.model else "model.num_classes"

    def _set_datasets(self, train: str | None, val: str | None) -> None:
        if train:
            self.cfg.dataloader.train.dataset.names = train
        self.cfg.dataloader.test.dataset.names = val or []

    def _write_down(self, entries: list[dict[str, Any]]) -> None:
        self.cfg.dataloader.own = entries

    @property
    def is_semantic(self) -> bool:
        """Whether the model has a head for the class of each pixel, and none for objects."""
        return "sem_seg_head" in self.cfg.model and "roi_heads" not in self.cfg.model

    def set_size(self, size: tuple[int, int]) -> None:
        """Set the sizes of the mappers' augmentations, those of training in proportion to that of tests."""
        tested = [step.short_edge_length for step in self.cfg.dataloader.test.mapper.augmentations]
        factor = min(size) / (tested[0] if tested else min(size))
        for mapper in (self.cfg.dataloader.train.mapper, self.cfg.dataloader.test.mapper):
            for step in mapper.augmentations:
                for key in ("short_edge_length", "min_sizes", "crop_size"):
                    if key in step:
                        step[key] = _scaled(step[key], factor)
                if "max_size" in step:
                    step.max_size = max(size)

    def _set_mask_format(self, mask_format: str) -> None:
        self.cfg.dataloader.train.mapper.instance_mask_format = mask_format

    def set_classes(self, number: int) -> None:
        """Set `num_classes` of the RoI heads, or of the detector itself if it has none."""
        # Two-stage detectors keep it in the RoI heads, one-stage detectors in themselves.
        part = "sem_seg_head" if self.is_semantic else "roi_heads"
        self.cfg.model.get(part, self.cfg.model).num_classes = number

    def model(self) -> nn.Module:
        """A new model from `model`, on the device."""
        return instantiate(self.cfg.model).to(self.device)

    def optimizer(self, model: nn.Module) -> Optimizer:
        """A new optimizer from `optimizer`."""
        config = copy.deepcopy(self.cfg.optimizer)
        config.params.model = model
        return instantiate(config)

    def scheduler(self, optimizer: Optimizer) -> LRMultiplier:
        """A new schedule from `lr_multiplier`."""
        return LRMultiplier(optimizer, instantiate(self.cfg.lr_multiplier), self.max_iter)

    def train_loader(self, seed: int, start_iter: int) -> Iterable:
        """Endless batches from `dataloader.train`. Raises `ValueError` if it names an unknown argument."""
        arguments = {key: instantiate(value) for key, value in self.cfg.dataloader.train.items() if key != "_target_"}
        try:
            return build_train_loader(**arguments, seed=seed, start_iter=start_iter)
        except TypeError as error:
            raise ValueError(f"dataloader.train: {first_line(error)}") from error

    def train_mapper(self) -> Callable[[dict], dict]:
        """`dataloader.train.mapper`."""
        return instantiate(self.cfg.dataloader.train.mapper)

    def test_mapper(self) -> Callable[[dict], dict]:
        """`dataloader.test.mapper`."""
        return instantiate(self.cfg.dataloader.test.mapper)

    def test_loader(self, name: str) -> DataLoader:
        """`dataloader.test`, with the dataset of that name."""
        config = copy.deepcopy(self.cfg.dataloader.test)
        config.dataset.names = name
        return instantiate({**config, "mapper": PhotosOnly(self.test_mapper())})

    def evaluator(self, name: str) -> DatasetEvaluator:
        """`dataloader.evaluator`, of this dataset; or detectron2's `SemSegEvaluator` for label images."""
        folder = str(Path(self.output_dir, "inference"))
        of_labels = evaluator_of(name, folder)
        if of_labels:
            return of_labels
        config = copy.deepcopy(self.cfg.dataloader.evaluator)
        config.dataset_name = name
        config.output_dir = folder
        return instantiate(config)

    def save(self, path: Path) -> None:
        """Write the config as YAML, for people to read: what it calls is a program, and only its source is run."""
        LazyConfig.save(self.cfg, str(path))
        path.write_text(f"{LAZY_MARK}{self.source}\n{path.read_text(encoding='utf-8')}", encoding="utf-8")


def load_lazy(config: str | Path, overrides: Sequence[str] = ()) -> DictConfig:
    """A LazyConfig from a Python file and `key=value` overrides.

    Raises `ValueError` that names the file or the override which is wrong.
    """
    try:
        cfg = LazyConfig.load(str(config))
    except Exception as error:  # A config is code, and may raise anything.
        raise ValueError(f"{config}: {type(error).__name__}: {first_line(error)}") from error
    missing = [key for key in ("model", "optimizer", "lr_multiplier", "dataloader", "train") if key not in cfg]
    if missing:
        raise ValueError(f"{config} is not a LazyConfig for training: it lacks {', '.join(missing)}")
    for override in overrides:
        key = override.split("=")[0]
        try:
            # A new key is right where arguments of a call are listed; elsewhere nothing would read it.
            if OmegaConf.select(cfg, key) is None and "_target_" not in OmegaConf.select(cfg, key.rpartition(".")[0]):
                raise KeyError(f"{config} has no {key}")
            LazyConfig.apply_overrides(cfg, [override])
        except Exception as error:  # The parser of overrides has errors of its own, of several libraries.
            raise ValueError(f"override {override}: {first_line(error)}") from error
    return cfg


def _as_list(names: Any) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _scaled(value: Any, factor: float) -> Any:
    return [_scaled(part, factor) for part in value] if not isinstance(value, int) else max(1, round(value * factor))
