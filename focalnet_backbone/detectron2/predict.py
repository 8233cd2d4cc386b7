"""Detections on images: pictures of them, and COCO's results format."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.data import Metadata, MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from detectron2.utils.visualizer import ColorMode, Visualizer
from PIL import Image
from tqdm import tqdm

from focalnet_backbone.checkpoints.sources import open_source
from focalnet_backbone.detectron2.checkpoint import FocalNetCheckpointer
from focalnet_backbone.detectron2.jobs import Job, load_job
from focalnet_backbone.detectron2.train import build_model, saved_categories
from focalnet_backbone.features.images import load_image
from focalnet_backbone.system.devices import choose_device
from focalnet_backbone.system.files import whole_file

logger = logging.getLogger(__name__)

RESULTS = "predictions.json"


def predict(
    config: str | Path,
    weights: str | Path,
    images: Sequence[str | Path],
    out_dir: str | Path,
    *,
    device: str | None = None,
    score_threshold: float = 0.5,
) -> list[Path]:
    """Detect objects in images, and write a picture of each and one file of results.

    `out_dir` gets `NAME.png` for each image, with boxes, masks, names and scores, and `predictions.json` in COCO's
    results format: `image_id` counts the images from 1, `file_name` is the image's path, boxes are `[left, top,
    width, height]` in pixels, masks run-length encoded. The file has every detection, the pictures those with a score
    of at least `score_threshold`.

    Args:
        config: YAML or LazyConfig of the detector.
        weights: its checkpoint, which also names its classes if it was trained by this package.
        images: image files.
        out_dir: folder to write into.
        device: "cuda" or "cpu"; None for a GPU if there is one.
        score_threshold: lowest score, from 0 to 1, of what is drawn.

    Returns:
        Paths of the pictures.

    Raises:
        FileNotFoundError: the config, the weights or an image is not there.
        ValueError: the config or an image is wrong, two images have the same name, or a picture would replace one.
        CheckpointError: the weights are not those of the whole model.
    """
    paths = check_images(images, Path(out_dir))
    overrides = {"yaml": "MODEL.DEVICE {}", "yml": "MODEL.DEVICE {}"}.get(Path(config).suffix[1:], "train.device={}")
    job = load_job(config, overrides.format(choose_device(device)).split())
    categories = saved_categories(open_source(weights).checkpoint, weights)
    if categories:
        job.set_classes(len(categories))
    model = build_model(job).eval()
    FocalNetCheckpointer(model, require_all=True).load(str(weights))
    metadata = _describe_classes(categories, job)

    out_dir = Path(out_dir)
    mapper = job.test_mapper()
    results, pictures = [], []
    for image_id, path in enumerate(tqdm(paths, desc="images"), start=1):
        with torch.no_grad():
            instances = model([mapper({"file_name": str(path)})])[0]["instances"].to("cpu")
        results += _to_coco(instances, image_id, path, metadata)
        pictures.append(out_dir / f"{path.stem}.png")
        picture = _draw(path, instances[instances.scores >= score_threshold], metadata)
        with whole_file(pictures[-1]) as unfinished:
            picture.save(unfinished)
    with whole_file(out_dir / RESULTS) as unfinished:
        unfinished.write_text(json.dumps(results), encoding="utf-8")
    logger.info("%d detections in %d images, written to %s", len(results), len(paths), out_dir)
    return pictures


def check_images(images: Sequence[str | Path], out_dir: Path) -> list[Path]:
    """The images as paths. Raises `FileNotFoundError` or `ValueError` if there is one that cannot be used."""
    paths = [Path(image) for image in images]
    stems: dict[str, Path] = {}
    for path in paths:
        load_image(path)
        if path.stem in stems:
            raise ValueError(f"{stems[path.stem]} and {path} would both be written as {path.stem}.png")
        if (out_dir / f"{path.stem}.png").resolve() == path.resolve():
            raise ValueError(f"the picture of {path} would be written over it; name another folder than {out_dir}")
        stems[path.stem] = path
    return paths


def _describe_classes(categories: list[dict], job: Job) -> Metadata:
    """Names and ids of the classes: the checkpoint's, or else those of the dataset that the config names."""
    if not categories:
        names = job.test_names
        return MetadataCatalog.get(names[0]) if names else Metadata()
    ids = {category["id"]: index for index, category in enumerate(categories)}
    return Metadata(thing_classes=[category["name"] for category in categories], thing_dataset_id_to_contiguous_id=ids)


def _to_coco(instances: Instances, image_id: int, path: Path, metadata: Metadata) -> list[dict]:
    ids = {index: id for id, index in metadata.get("thing_dataset_id_to_contiguous_id", {}).items()}
    found = instances_to_coco_json(instances, image_id)
    for detection in found:
        detection["category_id"] = ids.get(detection["category_id"], detection["category_id"])
        detection["file_name"] = str(path)
    return found


def _draw(path: Path, instances: Instances, metadata: Metadata) -> Image.Image:
    drawing = Visualizer(read_image(str(path), "RGB"), metadata, instance_mode=ColorMode.IMAGE)
    return Image.fromarray(drawing.draw_instance_predictions(instances).get_image())
