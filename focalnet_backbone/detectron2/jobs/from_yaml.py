"""Jobs from detectron2's `CfgNode`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetMapper, build_detection_test_loader, get_detection_dataset_dicts
from detectron2.data.detection_utils import build_augmentation
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator
from detectron2.modeling import build_model
from detectron2.solver import LRMultiplier, build_lr_scheduler, build_optimizer
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils.file_io import PathManager
from fvcore.common.config import BASE_KEY
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from focalnet_backbone.detectron2.config import add_focalnet_config
from focalnet_backbone.detectron2.jobs.job import Job
from focalnet_backbone.detectron2.loader import PhotosOnly, build_train_loader, detr_crop
from focalnet_backbone.detectron2.own_datasets import evaluator_of, register_own
from focalnet_backbone.system.command_line import first_line
from focalnet_backbone.system.inputs import compose_yaml, read_text

_TEXT = "tag:yaml.org,2002:str"


class YamlJob(Job):
    """A job from detectron2's `CfgNode`.

    Args:
        config: path of a YAML file.
        overrides: `KEY value KEY value ...` for the config.
    """

    device_hint = "append MODEL.DEVICE cpu"
    semantic_hint = "append MODEL.META_ARCHITECTURE SemanticSegmentor"

    def __init__(self, config: str | Path, overrides: Sequence[str] = ()) -> None:
        self.cfg = load_yaml(config, overrides)
        self.output_dir = self.cfg.OUTPUT_DIR
        self.weights = self.cfg.MODEL.WEIGHTS
        self.device = self.cfg.MODEL.DEVICE
        self.seed = self.cfg.SEED
        self.max_iter = self.cfg.SOLVER.MAX_ITER
        self.batch_size = self.cfg.SOLVER.IMS_PER_BATCH
        self.mixed_precision = self.cfg.SOLVER.AMP.ENABLED
        self.checkpoint_period = self.cfg.SOLVER.CHECKPOINT_PERIOD
        self.eval_period = self.cfg.TEST.EVAL_PERIOD
        self.best_metric = self.cfg.TEST.BEST_METRIC
        self.ddp = {"broadcast_buffers": False}
        for entry in self.cfg.DATASETS.OWN:
            register_own(entry)

    @property
    def train_names(self) -> list[str]:
        """`DATASETS.TRAIN`."""
        return list(self.cfg.DATASETS.TRAIN)

    @property
    def test_names(self) -> list[str]:
        """`DATASETS.TEST`."""
        return list(self.cfg.DATASETS.TEST)

    @property
    def masks(self) -> bool:
        """`MODEL.MASK_ON`."""
        return self.cfg.MODEL.MASK_ON

    @property
    def keypoints(self) -> bool:
        """`MODEL.KEYPOINT_ON`."""
        return self.cfg.MODEL.KEYPOINT_ON

    @property
    def mask_format(self) -> str:
        """`INPUT.MASK_FORMAT`."""
        return self.cfg.INPUT.MASK_FORMAT

    @property
    def image_format(self) -> str:
        """`INPUT.FORMAT`."""
        return self.cfg.INPUT.FORMAT

    @property
    def classes(self) -> int:
        """`NUM_CLASSES` of the part that tells classes apart."""
        part = self.cfg.MODEL.RETINANET if "RETINANET" in self.classes_key else self.cfg.MODEL.ROI_HEADS
        return part.NUM_CLASSES

    @property
    def classes_key(self) -> str:
        """`MODEL.ROI_HEADS.NUM_CLASSES` or `MODEL.RETINANET.NUM_CLASSES`."""
        one_stage = self.cfg.MODEL.META_ARCHITECTURE in ("RetinaNet", "FCOS")
        return f"MODEL.{'RETINANET' if one_stage else 'ROI_HEADS'}.NUM_CLASSES"

    def _set_datasets(self, train: str | None, val: str | None) -> None:
        if train:
            self.cfg.DATASETS.TRAIN = (train,)
        self.cfg.DATASETS.TEST = (val,) if val else ()

    def _write_down(self, entries: list[dict[str, Any]]) -> None:
        self.cfg.DATASETS.OWN = entries

    @property
    def is_semantic(self) -> bool:
        """Whether `MODEL.META_ARCHITECTURE` is that of semantic segmentation."""
        return self.cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor"

    def set_size(self, size: tuple[int, int]) -> None:
        """Set the sizes of `INPUT`, those of training in proportion to that of tests."""
        node = self.cfg.INPUT
        factor = min(size) / node.MIN_SIZE_TEST
        scaled = [max(1, round(side * factor)) for side in node.MIN_SIZE_TRAIN]
        node.MIN_SIZE_TRAIN, node.MIN_SIZE_TEST = tuple(scaled), min(size)
        node.MAX_SIZE_TRAIN = node.MAX_SIZE_TEST = max(size)
        if node.CROP.TYPE.startswith("absolute"):
            node.CROP.SIZE = [max(1, round(side * factor)) for side in node.CROP.SIZE]
        for key in ("MIN_SIZE_TRAIN", "SIZE"):
            node.DETR_CROP[key] = tuple(max(1, round(side * factor)) for side in node.DETR_CROP[key])

    def _set_mask_format(self, mask_format: str) -> None:
        self.cfg.INPUT.MASK_FORMAT = mask_format

    def set_classes(self, number: int) -> None:
        """Set `MODEL.ROI_HEADS.NUM_CLASSES` and `MODEL.RETINANET.NUM_CLASSES`."""
        self.cfg.MODEL.ROI_HEADS.NUM_CLASSES = number
        self.cfg.MODEL.RETINANET.NUM_CLASSES = number
        if self.is_semantic:
            self.cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = number

    def model(self) -> nn.Module:
        """A new model of `MODEL.META_ARCHITECTURE`, on the device."""
        return build_model(self.cfg)

    def optimizer(self, model: nn.Module) -> Optimizer:
        """A new optimizer from `SOLVER`. Raises `ValueError` for one that is neither SGD nor ADAMW."""
        solver = self.cfg.SOLVER
        if solver.OPTIMIZER == "SGD":
            return build_optimizer(self.cfg, model)
        if solver.OPTIMIZER != "ADAMW":
            raise ValueError(f"SOLVER.OPTIMIZER must be SGD or ADAMW, got {solver.OPTIMIZER}")
        parameters = get_default_optimizer_params(
            model,
            base_lr=solver.BASE_LR,
            weight_decay_norm=solver.WEIGHT_DECAY_NORM,
            bias_lr_factor=solver.BIAS_LR_FACTOR,
            weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        )
        adamw = torch.optim.AdamW(parameters, solver.BASE_LR, tuple(solver.BETAS), weight_decay=solver.WEIGHT_DECAY)
        return maybe_add_gradient_clipping(self.cfg, adamw)

    def scheduler(self, optimizer: Optimizer) -> LRMultiplier:
        """A new schedule from `SOLVER`."""
        return build_lr_scheduler(self.cfg, optimizer)

    def train_loader(self, seed: int, start_iter: int) -> Iterable:
        """Endless batches from `DATALOADER` and `INPUT`. Raises `ValueError` for a sampler that cannot be resumed."""
        if self.cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
            raise ValueError(f"DATALOADER.SAMPLER_TRAIN {self.cfg.DATALOADER.SAMPLER_TRAIN} cannot be resumed")
        dataset = get_detection_dataset_dicts(
            self.cfg.DATASETS.TRAIN, filter_empty=self.cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
        )
        return build_train_loader(
            dataset,
            self.train_mapper(),
            self.batch_size,
            aspect_ratio_grouping=self.cfg.DATALOADER.ASPECT_RATIO_GROUPING,
            num_workers=self.cfg.DATALOADER.NUM_WORKERS,
            seed=seed,
            start_iter=start_iter,
        )

    def train_mapper(self) -> DatasetMapper:
        """detectron2's mapper, with DETR's crop first where `INPUT.DETR_CROP` asks for it."""
        crop = self.cfg.INPUT.DETR_CROP
        if not crop.ENABLED:
            return DatasetMapper(self.cfg, True)
        first = detr_crop(crop.MIN_SIZE_TRAIN, tuple(crop.SIZE), self.cfg.INPUT.MAX_SIZE_TRAIN, crop.PROB)
        return DatasetMapper(self.cfg, True, augmentations=[first, *build_augmentation(self.cfg, True)])

    def test_mapper(self) -> Callable[[dict], dict]:
        """detectron2's mapper for testing."""
        return DatasetMapper(self.cfg, False)

    def test_loader(self, name: str) -> DataLoader:
        """detectron2's loader of a dataset for testing."""
        return build_detection_test_loader(self.cfg, name, mapper=PhotosOnly(self.test_mapper()))

    def evaluator(self, name: str) -> DatasetEvaluator:
        """detectron2's `COCOEvaluator`, or its `SemSegEvaluator` for label images."""
        folder = str(Path(self.output_dir, "inference"))
        return evaluator_of(name, folder) or COCOEvaluator(name, output_dir=folder)

    def save(self, path: Path) -> None:
        """Write the config as YAML."""
        path.write_text(self.cfg.dump(), encoding="utf-8")


def load_yaml(config: str | Path, overrides: Sequence[str] = ()) -> CfgNode:
    """A `CfgNode` with FocalNet's keys, from a YAML file and `KEY value ...` pairs.

    Raises `ValueError` that names the file or the override which is wrong.
    """
    cfg = get_cfg()
    add_focalnet_config(cfg)
    try:
        _check_files(str(config))
        cfg.merge_from_file(str(config), allow_unsafe=False)
    except yaml.constructor.ConstructorError as error:
        # The mark names the file, which may be a base of this one.
        raise ValueError(
            f"{config} is not YAML of plain data, as configs must be: {error.problem}{error.problem_mark}; write the "
            "value itself"
        ) from error
    except yaml.YAMLError as error:
        raise ValueError(f"{config} is not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ValueError(f"{config} contains itself, maybe by its _BASE_") from error
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{config}: {first_line(error)}") from error
    if len(overrides) % 2:
        raise ValueError(f"overrides must be pairs of a key and a value, got {' '.join(overrides)}")
    for key, value in zip(overrides[::2], overrides[1::2], strict=True):
        try:
            cfg.merge_from_list([key, value])
        except (AssertionError, KeyError, ValueError) as error:
            raise ValueError(f"override {key} {value}: {first_line(error)}") from error
    return cfg


def _check_files(config: str) -> None:
    """Raise `ValueError` if a YAML, or one of its bases, would take a reader's memory or stack."""
    seen: set[str] = set()
    while config not in seen:
        seen.add(config)
        text = read_text(PathManager.get_local_path(config))
        try:
            root = compose_yaml(text)
        except ValueError as error:
            raise ValueError(f"{config}: {error}") from error
        pairs = root.value if isinstance(root, yaml.MappingNode) else []
        node = next((value for key, value in pairs if key.value == BASE_KEY), None)
        if node is None or node.tag != _TEXT:  # What is wrong with another one, fvcore says.
            return
        base = node.value
        # As fvcore finds it.
        base = os.path.expanduser(base) if base.startswith("~") else base
        is_whole = base.startswith(("/", "https://", "http://"))
        config = base if is_whole else os.path.join(os.path.dirname(config), base)
