"""Predictions of the models of mmsegmentation and mmdetection."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.logging import print_log
from mmengine.registry import DATASETS, MODELS, VISUALIZERS
from mmengine.structures import InstanceData
from PIL import Image
from torch import nn

from focalnet_backbone.checkpoints import load_checkpoint
from focalnet_backbone.checkpoints.detector import is_dino
from focalnet_backbone.features.predictions import (
    Prediction,
    Predictor,
    UnfitImage,
    encode_mask,
    no_class,
    paint_labels,
)
from focalnet_backbone.openmmlab.data import leaf_datasets
from focalnet_backbone.openmmlab.runners import load_config, require
from focalnet_backbone.openmmlab.weights import check_fit, read_weights
from focalnet_backbone.system.devices import choose_device
from focalnet_backbone.system.inputs import read_json

PANOPTIC_OFFSET = 1000
"""In a panoptic map of mmdetection, a pixel is its class plus this times the number of its object."""

_NOT_IN_COCO = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
"""Ids from 1 to 90 that none of COCO's 80 classes has."""


class OpenMMLabPredictor(Predictor):
    """A model of mmsegmentation or mmdetection.

    Args:
        config: config file of the model.
        weights: checkpoint of the whole model, heads included.
        device: for example `"cuda:0"`; the GPU if there is one.

    Raises:
        FileNotFoundError: there is no such config or checkpoint.
        ValueError: the config cannot be read, or there is no such device.
        CheckpointError: the checkpoint cannot be read or does not fit the model.
    """

    def __init__(self, config: str | Path, weights: str | Path, *, device: str | None = None) -> None:
        self.cfg = load_config(config)
        require(self.cfg, "model", "test_dataloader")
        if self.cfg.get("default_scope") == "mmpretrain":
            raise ValueError(
                f"{config} is of a classifier, which tells no objects or classes of pixels; mmpretrain's "
                "ImageClassificationInferencer(config, pretrained=weights) names what is in a photo"
            )
        self.model, self.meta = load_model(self.cfg, weights, str(choose_device(device)))
        self.pipeline = _build_pipeline(self.cfg)
        # Mask2Former's head has the one name, whether it tells segments or objects alone.
        test_cfg = self.cfg.model.get("test_cfg") or {}
        is_panoptic = any("panoptic" in name for name in self.cfg.model) and test_cfg.get("panoptic_on", True)
        self.labels_pixels = is_panoptic or any(name in self.cfg.model for name in ("decode_head", "auxiliary_head"))
        self.detects = not self.labels_pixels
        self.ids = category_ids(self.cfg, self.meta["classes"]) if self.detects else []

    def predict(self, path: Path, image: np.ndarray) -> Prediction:
        """What there is in an image, RGB, uint8 `(H, W, 3)`. Raises `UnfitImage` if the pipeline cannot resize it."""
        try:
            data = self.pipeline({"img": np.ascontiguousarray(image[..., ::-1]), "img_id": 0})
        except cv2.error as error:  # As a rule, no pixel would be left of the shorter side.
            height, width = image.shape[:2]
            raise UnfitImage(f"{path} is {height}x{width}, which the test pipeline cannot resize") from error
        with torch.no_grad():
            sample = self.model.test_step({key: [value] for key, value in data.items()})[0]
        if self.detects:
            return Prediction(_to_coco(sample.pred_instances.cpu(), self.ids), raw=sample)
        kind = np.dtype(np.uint8 if len(self.meta["classes"]) <= 255 else np.uint16)
        if "pred_sem_seg" in sample:
            labels = sample.pred_sem_seg.data[0]
        else:  # A pixel of nothing that was sure enough has the number of classes.
            labels = sample.pred_panoptic_seg.sem_seg[0] % PANOPTIC_OFFSET
            labels[labels == len(self.meta["classes"])] = no_class(kind)
        return Prediction(labels=labels.cpu().numpy().astype(kind), raw=sample)

    def draw(self, image: np.ndarray, prediction: Prediction, score: float) -> Image.Image:
        """Labelled boxes and masks upon an image; or the classes of pixels, with a legend."""
        if prediction.labels is not None:
            return paint_labels(image, prediction.labels, self.meta["classes"], self.meta["palette"])
        visualizer = VISUALIZERS.build({"type": "DetLocalVisualizer", "name": "predict"})
        visualizer.dataset_meta = self.meta
        visualizer.add_datasample("", image, prediction.raw, draw_gt=False, pred_score_thr=score)
        return Image.fromarray(visualizer.get_image())


def load_model(cfg: Config, weights: str | Path, device: str) -> tuple[nn.Module, dict[str, Any]]:
    """Build a config's model with trained weights, in eval mode.

    Returns:
        The model, and `{"classes": names, "palette": RGB colours}` as the checkpoint or else the config has them.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        CheckpointError: it cannot be read or does not fit the model.
    """
    tensors, info = read_weights(weights)
    model = MODELS.build(cfg.model)
    if is_dino(model):  # Whose settings are compared, too.
        load_checkpoint(model, weights)
    else:
        check_fit(model, tensors, weights)
        model.load_state_dict(tensors, strict=False)
    return model.to(device).eval(), _dataset_meta(cfg, model, info, weights)


def _dataset_meta(cfg: Config, model: nn.Module, info: Mapping[str, Any], source: str | Path) -> dict[str, Any]:
    """Names and colours of the model's classes: the checkpoint's, else the config's, else their numbers.

    mmengine's checkpoints have them, the release's older ones in capitals. What does not fit the model is left out.
    """
    dataset = next(leaf_datasets(cfg.test_dataloader.dataset))
    with DATASETS.switch_scope_and_registry(None) as registry:
        configured = {**registry.get(dataset["type"]).METAINFO, **dataset.get("metainfo", {})}
    older = {key.lower(): info[key] for key in ("CLASSES", "PALETTE") if info.get(key)}
    saved = info.get("dataset_meta") or older
    count = _count_classes(model)
    for meta in (saved, configured):
        classes = meta.get("classes") if isinstance(meta, Mapping) else None
        if _are_names(classes) and count in (None, len(classes)):
            return {**meta, "classes": classes, "palette": _palette(meta.get("palette"), len(classes))}
        if meta is saved and saved:
            print_log(
                f"{source} names other classes than the {count or ''} of the model; the config's are taken",
                "current",
                logging.WARNING,
            )
    names = [f"class {index}" for index in range(count or 0)]
    return {"classes": names, "palette": _palette(None, len(names))}


def _count_classes(model: nn.Module) -> int | None:
    """The number of classes that a model tells apart; None if its head is of a kind that does not say so."""
    for path in ("decode_head", "bbox_head", "roi_head.bbox_head", "panoptic_head"):
        head = model
        for name in path.split("."):
            head = getattr(head, name, None)
        if isinstance(head, nn.ModuleList) and len(head):
            head = head[-1]
        if path == "decode_head" and getattr(head, "out_channels", None) == 1 and getattr(head, "threshold", None):
            return 2  # One output tells both apart, by a threshold.
        count = getattr(head, "num_classes", None)
        if isinstance(count, int) and count > 0:
            return count
    return None


def _are_names(classes: Any) -> bool:
    return isinstance(classes, list | tuple) and len(classes) > 0 and all(isinstance(name, str) for name in classes)


def _palette(colours: Any, count: int) -> list[tuple[int, int, int]]:
    """RGB colours of the classes; of its own if what is given is none, or not one a class."""

    def is_colour(colour: Any) -> bool:
        values = list(colour) if isinstance(colour, list | tuple) else []
        return len(values) == 3 and all(isinstance(value, int) and 0 <= value <= 255 for value in values)

    if not isinstance(colours, list | tuple) or len(colours) < count or not all(map(is_colour, colours)):
        colours = np.random.default_rng(0).integers(0, 256, (count, 3)).tolist()
    return [tuple(colour) for colour in colours[:count]]


def _build_pipeline(cfg: Config) -> Compose:
    """The test pipeline for an image in memory that has no annotation."""
    _, *transforms = next(leaf_datasets(cfg.test_dataloader.dataset))["pipeline"]
    scope = cfg.get("default_scope")
    keep = [transform for transform in transforms if not transform["type"].endswith("LoadAnnotations")]
    return Compose([{"type": f"{scope}.LoadImageFromNDArray"}, *keep])


def category_ids(cfg: Config, classes: Sequence[str]) -> list[int]:
    """The dataset's id of each class: of the file of annotations if it is there, or COCO's, or else the position."""
    dataset = next(leaf_datasets(cfg.test_dataloader.dataset))
    annotations = Path(dataset.get("data_root") or ".", dataset.get("ann_file") or "")
    if annotations.is_file():
        try:
            listed = read_json(annotations, most=None)["categories"]
            ids = {category["name"]: category["id"] for category in listed}
        except (ValueError, KeyError, TypeError):
            ids = {}
        if all(name in ids for name in classes):
            return [ids[name] for name in classes]
    with DATASETS.switch_scope_and_registry("mmdet") as registry:
        coco = registry.get("CocoDataset")
    if coco is not None and tuple(classes) == tuple(coco.METAINFO["classes"]):
        return [number for number in range(1, 91) if number not in _NOT_IN_COCO]
    return list(range(len(classes)))


def _to_coco(instances: InstanceData, ids: Sequence[int]) -> list[dict[str, Any]]:
    """Objects in COCO's results format."""
    found = []
    for number in range(len(instances)):
        left, top, right, bottom = instances.bboxes[number].tolist()
        detection = {
            "category_id": ids[int(instances.labels[number])],
            "bbox": [left, top, right - left, bottom - top],
            "score": float(instances.scores[number]),
        }
        if "masks" in instances:
            detection["segmentation"] = encode_mask(np.asarray(instances.masks[number]))
        found.append(detection)
    return found
