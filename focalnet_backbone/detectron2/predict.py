"""Predictions of detectron2's models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import Metadata, MetadataCatalog
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.modeling import PanopticFPN, SemanticSegmentor
from detectron2.structures import Instances
from detectron2.utils.visualizer import ColorMode, Visualizer
from PIL import Image

from focalnet_backbone.checkpoints.sources import open_source
from focalnet_backbone.detectron2.checkpoint import FocalNetCheckpointer
from focalnet_backbone.detectron2.jobs import Job, load_job
from focalnet_backbone.detectron2.train import build_model, saved_categories
from focalnet_backbone.features.predictions import Prediction, Predictor, paint_labels
from focalnet_backbone.system.devices import choose_device


class Detectron2Predictor(Predictor):
    """A model of detectron2: boxes, masks, and classes of pixels if it gives them.

    Args:
        config: YAML or LazyConfig of the model.
        weights: its checkpoint, which also names its classes if it was trained by this package.
        device: "cuda" or "cpu"; None for a GPU if there is one.

    Raises:
        FileNotFoundError: the config or the weights are not there.
        ValueError: the config is wrong, or there is no such device.
        CheckpointError: the weights are not those of the whole model.
    """

    def __init__(self, config: str | Path, weights: str | Path, *, device: str | None = None) -> None:
        overrides = {"yaml": "MODEL.DEVICE {}", "yml": "MODEL.DEVICE {}"}
        override = overrides.get(Path(config).suffix[1:], "train.device={}")
        job = load_job(config, override.format(choose_device(device)).split())
        categories = saved_categories(open_source(weights).checkpoint, weights)
        if categories:
            job.set_classes(len(categories))
        self.model = build_model(job).eval()
        FocalNetCheckpointer(self.model, require_all=True).load(str(weights))
        self.metadata = _describe_classes(categories, job)
        self.mapper = job.test_mapper()
        self.detects = not isinstance(self.model, SemanticSegmentor)
        self.labels_pixels = isinstance(self.model, SemanticSegmentor | PanopticFPN)

    def predict(self, path: Path, image: np.ndarray) -> Prediction:
        """What there is in an image file, which the config's mapper reads for itself."""
        with torch.no_grad():
            output = self.model([self.mapper({"file_name": str(path)})])[0]
        labels = None
        if "sem_seg" in output:
            labels = output["sem_seg"].argmax(0).cpu().numpy().astype(np.uint8)
        if "instances" not in output:
            return Prediction(labels=labels)
        instances = output["instances"].to("cpu")
        return Prediction(self._to_coco(instances), labels, instances)

    def draw(self, image: np.ndarray, prediction: Prediction, score: float) -> Image.Image:
        """Boxes, masks, names and scores upon an image; of a model that only labels pixels, their classes."""
        instances = prediction.raw
        if instances is None:
            palette = self.metadata.get("stuff_colors")
            return paint_labels(image, prediction.labels, self.metadata.get("stuff_classes") or (), palette)
        drawing = Visualizer(image, self.metadata, instance_mode=ColorMode.IMAGE)
        chosen = instances[instances.scores >= score]
        return Image.fromarray(drawing.draw_instance_predictions(chosen).get_image())

    def _to_coco(self, instances: Instances) -> list[dict[str, Any]]:
        ids = {index: id for id, index in self.metadata.get("thing_dataset_id_to_contiguous_id", {}).items()}
        found = instances_to_coco_json(instances, 0)
        for detection in found:
            del detection["image_id"]
            detection["category_id"] = ids.get(detection["category_id"], detection["category_id"])
        return found


def _describe_classes(categories: list[dict], job: Job) -> Metadata:
    """Names and ids of the classes: the checkpoint's, or else those of the dataset that the config names."""
    if not categories:
        names = job.test_names
        return MetadataCatalog.get(names[0]) if names else Metadata()
    ids = {category["id"]: index for index, category in enumerate(categories)}
    return Metadata(thing_classes=[category["name"] for category in categories], thing_dataset_id_to_contiguous_id=ids)
