"""Predictions of a trained model on images, as pictures and files."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.logging import print_log
from mmengine.registry import DATASETS, MODELS, VISUALIZERS
from mmengine.structures import BaseDataElement
from PIL import Image, ImageDraw, ImageFont
from torch import nn
from tqdm import tqdm

from focalnet_backbone.features.images import load_image
from focalnet_backbone.openmmlab.data import leaf_datasets
from focalnet_backbone.openmmlab.runners import load_config, require
from focalnet_backbone.openmmlab.weights import check_fit, read_weights
from focalnet_backbone.system.devices import choose_device
from focalnet_backbone.system.files import whole_file

OPACITY = 0.6


def predict(
    config: str | Path,
    weights: str | Path,
    images: Sequence[str | Path],
    out_dir: str | Path,
    device: str | None = None,
) -> list[Path]:
    """Predict with a model of mmsegmentation or mmdetection, and write what it finds.

    For segmentation, `NAME.png` holds the class index of each pixel and `NAME_overlay.png` the image painted with the
    classes, beside a legend of their names. For detection, `NAME_overlay.png` shows the labelled boxes and masks.

    Args:
        config: config file of the model.
        weights: checkpoint of the whole model, heads included.
        images: image files; their names without suffix must differ.
        out_dir: folder for the pictures, made if need be.
        device: for example `"cuda:0"`; the GPU if there is one.

    Returns:
        The files that were written.

    Raises:
        FileNotFoundError: there is no such config, checkpoint or image.
        ValueError: the config or an image cannot be read, or two images would write the same file.
        CheckpointError: the checkpoint cannot be read or does not fit the model.
    """
    paths = [Path(path) for path in images]
    _check_names(paths)
    cfg = load_config(config)
    require(cfg, "model", "test_dataloader")
    model, meta = load_model(cfg, weights, str(choose_device(device)))
    pipeline = _build_pipeline(cfg)
    out_dir = Path(out_dir)
    written = []
    for path in tqdm(paths, desc="predict"):
        image = load_image(path).permute(1, 2, 0).numpy()
        sample = _infer(model, pipeline, image)
        if "pred_sem_seg" in sample:
            written += _write_segmentation(image, sample, meta, out_dir / path.stem)
        else:
            written.append(_write_detection(image, sample, meta, out_dir / path.stem))
    return written


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
    check_fit(model, tensors, weights)
    model.load_state_dict(tensors, strict=False)
    return model.to(device).eval(), _dataset_meta(cfg, model, info, weights)


def _check_names(paths: list[Path]) -> None:
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"no image file {path}")
    stems: dict[str, Path] = {}
    for path in paths:
        if path.stem in stems:
            raise ValueError(f"{stems[path.stem]} and {path} would write the same file; rename one of them")
        stems[path.stem] = path


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


def _infer(model: nn.Module, pipeline: Compose, image: np.ndarray) -> BaseDataElement:
    """The model's prediction for an RGB image `(H, W, 3)`."""
    data = pipeline({"img": np.ascontiguousarray(image[..., ::-1]), "img_id": 0})
    with torch.no_grad():
        return model.test_step({key: [value] for key, value in data.items()})[0]


def _write_segmentation(
    image: np.ndarray, sample: BaseDataElement, meta: dict[str, Any], stem: Path
) -> tuple[Path, Path]:
    labels = sample.pred_sem_seg.data[0].cpu().numpy()
    labels = labels.astype(np.uint8 if len(meta["classes"]) <= 256 else np.uint16)
    label_path, overlay_path = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}_overlay.png")
    palette = np.asarray(meta["palette"], np.uint8)
    painted = (OPACITY * palette[labels] + (1 - OPACITY) * image).astype(np.uint8)
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=len(palette)))
    legend = [(meta["classes"][index], tuple(palette[index].tolist())) for index in present]
    with whole_file(label_path) as unfinished:
        Image.fromarray(labels).save(unfinished)
    with whole_file(overlay_path) as unfinished:
        _add_legend(Image.fromarray(painted), legend).save(unfinished)
    return label_path, overlay_path


def _add_legend(image: Image.Image, entries: list[tuple[str, tuple[int, int, int]]]) -> Image.Image:
    """The image with a legend of class names and colours to its right."""
    size = 14
    font = ImageFont.load_default(size)
    width = 3 * size + max(int(font.getlength(name)) for name, _ in entries)
    height = size + len(entries) * 2 * size
    canvas = Image.new("RGB", (image.width + width, max(image.height, height)), "white")
    canvas.paste(image, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for row, (name, colour) in enumerate(entries):
        left, top = image.width + size // 2, size // 2 + row * 2 * size
        draw.rectangle((left, top, left + size, top + size), fill=colour, outline="black")
        draw.text((left + 3 * size // 2, top + size // 2), name, fill="black", font=font, anchor="lm")
    return canvas


def _write_detection(image: np.ndarray, sample: BaseDataElement, meta: dict[str, Any], stem: Path) -> Path:
    visualizer = VISUALIZERS.build({"type": "DetLocalVisualizer", "name": "predict"})
    visualizer.dataset_meta = meta
    path = stem.with_name(f"{stem.name}_overlay.png")
    with whole_file(path) as unfinished:
        visualizer.add_datasample("", image, sample, draw_gt=False, out_file=str(unfinished))
    return path
