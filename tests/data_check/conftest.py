"""Tiny datasets to spoil, and the check of each as its command line does it."""

from __future__ import annotations

import focalnet_backbone.openmmlab  # noqa: F401  # isort: skip  (lets mmcv.ops be imported)
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.registry import DefaultScope
from PIL import Image

from focalnet_backbone.command import check_data
from tests.d2.conftest import TINY

LAZY = TINY.with_name("tiny_lazy.py")
SIZE = (40, 32)
"""Width and height of the photos."""

MMDET = """
default_scope = "mmdet"
head = dict(num_classes=CLASS_COUNT)
model = dict(rpn_head=dict(num_classes=1), roi_head=dict(bbox_head=[head, head], mask_head=head))
steps = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True, with_mask=WITH_MASK)]
data = dict(type="CocoDataset", metainfo=METAINFO, data_prefix=dict(img="images"), pipeline=steps)
used = dict(filter_cfg=dict(filter_empty_gt=True))
train_dataloader = dict(dataset=dict(**data, **used, data_root="TRAIN", ann_file="coco.json"))
val_dataloader = dict(dataset=dict(**data, data_root="VAL", ann_file="coco.json", test_mode=True))
val_evaluator = dict(type="CocoMetric", metric=["bbox", "segm"] if WITH_MASK else ["bbox"], ann_file="VAL/coco.json")
"""
MMSEG = """
default_scope = "mmseg"
model = dict(decode_head=dict(num_classes=CLASS_COUNT), auxiliary_head=dict(num_classes=CLASS_COUNT))
data = dict(type="BaseSegDataset", metainfo=dict(classes=CLASSES), data_root="ROOT", SETTINGS)
steps = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")]
train = dict(img_path="images/training", seg_map_path="annotations/training")
val = dict(img_path="images/validation", seg_map_path="annotations/validation")
train_dataloader = dict(dataset=dict(**data, data_prefix=train, pipeline=steps))
val_dataloader = dict(dataset=dict(**data, data_prefix=val, pipeline=steps))
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOCALNET_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _scope() -> Iterator[None]:
    """No test's config leaves its scope to the next."""
    with DefaultScope.overwrite_default_scope("mmengine"):
        yield


def make_coco(folder: Path, change: Callable[[dict], object] | None = None, count: int = 4, seed: int = 0) -> Path:
    """Grey photos with a ball and a tile each, and their `coco.json`, whose content is changed before it is written."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    width, height = SIZE
    for number in range(1, count + 1):
        photo = rng.integers(60, 110, (height, width, 3)).astype(np.uint8)
        Image.fromarray(photo).save(folder / "images" / f"{number:03d}.png")
        images.append({"id": number, "file_name": f"{number:03d}.png", "height": height, "width": width})
        for category in (1, 2):
            x, y, w, h = 15 * category, 2 + number, 9, 12
            annotation = {"id": len(annotations) + 1, "image_id": number, "category_id": category, "iscrowd": 0}
            outline = [x, y, x + w, y, x + w, y + h, x, y + h]
            annotations.append({**annotation, "bbox": [x, y, w, h], "area": w * h, "segmentation": [outline]})
    categories = [{"id": 1, "name": "ball"}, {"id": 2, "name": "tile"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    changed = change(content) if change else None
    (folder / "coco.json").write_bytes(changed if isinstance(changed, bytes) else json.dumps(content).encode())
    return folder


def make_scenes(folder: Path, count: int = 3) -> Path:
    """Noise photos of 32 x 24 pixels with labels of 0, 1 and 2, for training and validation."""
    rng = np.random.default_rng(0)
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(count):
            photo = Image.fromarray(rng.integers(0, 255, (24, 32, 3)).astype(np.uint8))
            label = rng.integers(0, 3, (3, 4)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
            label[:2, :6] = [0, 0, 1, 1, 2, 2]
            photo.save(folder / "images" / split / f"{number:03d}.jpg")
            Image.fromarray(label).save(folder / "annotations" / split / f"{number:03d}.png")
    return folder


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture) -> SimpleNamespace:
    """`check.detectron2(train, val)`, `check.lazy(...)`, `check.mmdet(...)`, `check.mmseg(root)`, of such datasets.

    Each gives the exit `status`, the lines of `errors` and `warnings`, and the printed `table`.
    """

    def run(*arguments: object) -> SimpleNamespace:
        capsys.readouterr()
        status = check_data.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        said = [line.removeprefix("check_data.py: ") for line in err.splitlines() if line.startswith("check_data.py: ")]
        warnings = [line.removeprefix("warning: ") for line in said if line.startswith("warning: ")]
        errors = [line for line in said if not line.startswith("warning: ")]
        assert (status == 2) == bool(errors), err
        if errors:
            assert err.splitlines()[-1].endswith(errors[-1])
        return SimpleNamespace(status=status, errors=errors, warnings=warnings, table=out)

    def detectron2(train: Path, val: Path, *overrides: str, config: Path = TINY) -> SimpleNamespace:
        data = [("--train", train), ("--val", val)]
        flags = [f for name, at in data for f in (f"{name}-json", at / "coco.json", f"{name}-images", at / "images")]
        return run(config, *overrides, *flags)

    def lazy(train: Path, val: Path, *overrides: str) -> SimpleNamespace:
        return detectron2(train, val, *overrides, config=LAZY)

    def mmdet(
        train: Path,
        val: Path,
        *options: str,
        classes: object = ("ball", "tile"),
        count: int = 2,
        masks: bool = True,
        metainfo: dict | None = None,
    ) -> SimpleNamespace:
        values = {
            "CLASS_COUNT": count,
            "WITH_MASK": masks,
            "METAINFO": {"classes": classes} if metainfo is None else metainfo,
            "TRAIN": train,
            "VAL": val,
        }
        return run(write(MMDET, values), *(("--cfg-options", *options) if options else ()))

    def mmseg(
        root: Path, *options: str, classes: object = ("a", "b", "c"), count: int = 3, settings: str = ""
    ) -> SimpleNamespace:
        values = {"CLASS_COUNT": count, "CLASSES": repr(classes), "ROOT": root, "SETTINGS": settings}
        return run(write(MMSEG, values), *(("--cfg-options", *options) if options else ()))

    def write(text: str, values: dict[str, object]) -> Path:
        config = tmp_path / "config.py"
        config.write_text(re.sub("|".join(values), lambda found: str(values[found.group()]), text), encoding="utf-8")
        return config

    return SimpleNamespace(run=run, detectron2=detectron2, lazy=lazy, mmdet=mmdet, mmseg=mmseg)
