"""A user's own data in the place of a config's: every head, pipeline and evaluator, and training by one line."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from PIL import Image

from focalnet_backbone.annotations import coco
from focalnet_backbone.command import test as test_tool
from focalnet_backbone.command import train as train_tool
from focalnet_backbone.data_check.openmmlab import check_config
from focalnet_backbone.openmmlab.own_data import RenumberLoadedLabels, read_categories, use_own_data
from focalnet_backbone.openmmlab.runners import load_config
from focalnet_backbone.own_data import OwnData, Split
from tests.openmmlab.conftest import ROOT, SAMPLE_CONFIG

CLASSES = ("ball", "tile", "cone", "star", "photograph", "grass", "gravel", "brick")
OBJECTS = CLASSES[:4]
SEGMENTERS = [
    "mmseg/upernet_focalnet_tiny_lrf_160k_ade20k_512x512.py",
    "mmseg/upernet_focalnet_sample.py",
    "mmseg/mask2former_focalnet_tiny_lrf_160k_ade20k_512x512.py",
]
DETECTORS = [
    "mmdet/mask_rcnn_focalnet_tiny_lrf_1x.py",
    "mmdet/mask_rcnn_focalnet_sample.py",
    "mmdet/cascade_mask_rcnn_focalnet_tiny_lrf_3x.py",
    "mmdet/atss_focalnet_tiny_lrf_3x.py",
    "mmdet/sparse_rcnn_focalnet_tiny_lrf_3x.py",
    "mmdet/dino-4scale_focalnet_tiny_lrf_12e_coco.py",
    "mmdet/mask2former_focalnet_tiny_lrf_coco.py",
]


@pytest.fixture(scope="session")
def masks(sample_dataset: Path) -> OwnData:
    """The sample dataset's label images, where 0 is no class."""
    train, val = (
        Split(sample_dataset / "images" / folder, labels=sample_dataset / "annotations" / folder)
        for folder in ("training", "validation")
    )
    return OwnData(train, val, CLASSES, (0,), (48, 32))


@pytest.fixture(scope="session")
def objects(sample_dataset: Path) -> OwnData:
    """The sample dataset's COCO files."""
    train, val = (
        Split(sample_dataset / "images" / folder, annotations=sample_dataset / "coco" / f"instances_{folder}.json")
        for folder in ("training", "validation")
    )
    return OwnData(train, val, size=(120, 80))


def parts(part: Any) -> Iterator[dict]:
    if isinstance(part, dict):
        yield part
    for value in part.values() if isinstance(part, dict) else part if isinstance(part, list | tuple) else ():
        yield from parts(value)


def loaded(cfg: Config, loader: str) -> list[np.ndarray]:
    """The labels of a data loader's dataset, before anything random."""
    dataset = cfg[f"{loader}_dataloader"].dataset
    pipeline = [step for step in dataset.pipeline if "Load" in step["type"]]
    return [sample["gt_seg_map"] for sample in DATASETS.build({**dataset, "pipeline": pipeline, "_scope_": "mmseg"})]


@pytest.mark.parametrize("name", SEGMENTERS)
def test_a_segmenters_heads_labels_and_evaluation_become_those_of_the_data(name, masks):
    cfg = load_config(ROOT / "configs" / name, None, masks)
    heads = [head for key, head in cfg.model.items() if key.endswith("_head")]
    assert [head["num_classes"] for head in heads] == [8] * len(heads)
    weights = [part["class_weight"] for part in parts(cfg.model) if part.get("class_weight") is not None]
    assert all(len(weight) == 9 and weight[:8] == [1.0] * 8 for weight in weights)  # Mask2Former's "no object".
    assert cfg.train_dataloader.dataset.metainfo.classes == list(CLASSES)
    assert cfg.val_evaluator.type == cfg.test_evaluator.type == "IoUMetric"
    assert cfg.model.data_preprocessor["size"] == (32, 48)
    assert check_config(cfg, ("train_dataloader", "val_dataloader", "test_dataloader")).findings.errors == []
    for loader in ("train", "val", "test"):
        step = next(s for s in cfg[f"{loader}_dataloader"].dataset.pipeline if "Renumber" in s["type"])
        assert step == {"type": "RenumberLoadedLabels", "values": [1, 2, 3, 4, 5, 6, 7, 8], "ignore": [0]}


def test_ignored_values_and_classes_are_read_as_mmsegmentations_own_zero_label_is(masks, sample_dataset):
    own = load_config(SAMPLE_CONFIG, None, masks)
    usual = load_config(SAMPLE_CONFIG)
    for loader in ("train", "val"):
        usual[f"{loader}_dataloader"].dataset.data_root = str(sample_dataset)
        labels, expected = loaded(own, loader), loaded(usual, loader)
        assert len(labels) == len(expected) > 0
        for ours, theirs in zip(labels, expected, strict=True):
            assert np.array_equal(ours, theirs)
        assert set(np.unique(labels)) <= {*range(8), 255}


def test_class_weights_and_sizes_are_told(masks):
    cfg = load_config(SAMPLE_CONFIG)
    notes = use_own_data(cfg, masks)
    assert "class_weight" not in cfg.model.decode_head.loss_decode
    text = "\n".join(notes)
    for part in ("8 classes: ball", "train: photos *.jpg", "value 0 are of no class", "class_weight is left out"):
        assert part in text
    scales = {part["scale"] for part in parts(cfg.tta_pipeline) if part["type"] == "Resize"}
    assert scales == {(42, 28), (48, 32), (54, 36)}
    assert cfg.train_dataloader.dataset.pipeline[4] == {
        "type": "RandomCrop",
        "crop_size": (32, 48),
        "cat_max_ratio": 0.75,
    }


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detectors_heads_and_evaluation_become_those_of_the_data(name, objects):
    cfg = load_config(ROOT / "configs" / name, None, objects)
    numbers = [part["num_classes"] for part in parts(cfg.model) if "num_classes" in part and part["type"] != "RPNHead"]
    numbers += [part["num_things_classes"] for part in parts(cfg.model) if "num_things_classes" in part]
    assert numbers
    assert set(numbers) == {4}
    assert all(len(part["class_weight"]) == 5 for part in parts(cfg.model) if part.get("class_weight"))
    assert cfg.val_evaluator.ann_file == cfg.test_evaluator.ann_file == str(objects.val.annotations)
    assert ("segm" in cfg.val_evaluator.metric) == ("mask" in name)
    assert check_config(cfg, ("train_dataloader", "val_dataloader", "test_dataloader")).findings.errors == []
    resized = [s for s in cfg.test_dataloader.dataset.pipeline if s["type"] == "Resize"]
    assert [tuple(step["scale"]) for step in resized] == [(120, 80)]
    # Whatever size training draws, it is in proportion: not longer than 1.3 times that of tests on the short side.
    drawn = [s for part in parts(cfg.train_dataloader.dataset.pipeline) for s in part.get("scales", ())]
    assert all(30 <= min(scale) <= 104 for scale in drawn)


def test_some_classes_of_a_coco_file_can_be_chosen(objects):
    some = OwnData(objects.train, objects.val, classes=("star", "ball"))
    cfg = load_config(ROOT / "configs" / DETECTORS[0], None, some)
    dataset = DATASETS.build({**cfg.train_dataloader.dataset, "pipeline": [], "_scope_": "mmdet"})
    content = json.loads(objects.train.annotations.read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    wanted = sum(names[annotation["category_id"]] in ("star", "ball") for annotation in content["annotations"])
    assert dataset.metainfo["classes"] == ["ball", "star"]  # In the file's order, which is mmdetection's.
    assert sum(len(info["instances"]) for info in dataset) == wanted


def test_wrappers_of_the_dataset_stay_and_photos_of_several_endings_are_all_read(masks, tmp_path):
    for folder, suffix in itertools.product(("photos", "labels"), ("jpg", "png")):
        (tmp_path / folder).mkdir(exist_ok=True)
        image = Image.new("RGB" if folder == "photos" else "L", (8, 8))
        image.paste(1 if folder == "labels" else (1, 1, 1), (0, 0, 4, 8))  # Both classes are there.
        image.save(tmp_path / folder / f"{suffix}.{suffix if folder == 'photos' else 'png'}")
    cfg = load_config(SAMPLE_CONFIG)
    cfg.train_dataloader.dataset = {"type": "RepeatDataset", "times": 3, "dataset": cfg.train_dataloader.dataset}
    use_own_data(cfg, OwnData(Split(tmp_path / "photos", tmp_path / "labels"), None, ("a", "b")))
    assert cfg.train_dataloader.dataset.type == "RepeatDataset"
    assert check_config(cfg, ("train_dataloader",)).findings.errors == []
    assert len(DATASETS.build({**cfg.train_dataloader.dataset, "_scope_": "mmseg"})) == 6
    assert cfg.val_dataloader is cfg.val_cfg is cfg.val_evaluator is cfg.test_dataloader is None


def test_labels_that_lie_within_the_folder_of_photos_are_not_told_as_photos(masks, tmp_path):
    shutil.copytree(masks.train.images, tmp_path / "photos")
    shutil.copytree(masks.train.labels, tmp_path / "photos" / "labels")
    data = replace(masks, train=Split(tmp_path / "photos", tmp_path / "photos" / "labels"), val=None)
    report = check_config(load_config(ROOT / "configs" / "mmseg/upernet_focalnet_sample.py", None, data))
    assert report.findings.errors == report.findings.warnings == []
    assert len(report.splits[0].photos) == len(list(masks.train.images.iterdir()))


@pytest.mark.parametrize(
    ("config", "data", "message"),
    [
        ("mmseg/upernet_focalnet_sample.py", "objects", "mmseg, which does not learn from objects in COCO's format"),
        ("mmdet/atss_focalnet_tiny_lrf_3x.py", "masks", "mmdet, which does not learn from label images"),
        ("mmdet/mask2former_focalnet_tiny_lrf_coco-panoptic.py", "objects", "panoptic files"),
    ],
)
def test_data_of_another_kind_is_refused(config, data, message, request):
    with pytest.raises(ValueError, match=message):
        load_config(ROOT / "configs" / config, None, request.getfixturevalue(data))


def test_coco_files_of_different_classes_are_refused(objects, tmp_path):
    content = json.loads(objects.val.annotations.read_text())
    content["categories"].reverse()
    (tmp_path / "val.json").write_text(json.dumps(content))
    other = OwnData(objects.train, Split(objects.val.images, annotations=tmp_path / "val.json"))
    with pytest.raises(ValueError, match="have different classes, or in another order"):
        load_config(ROOT / "configs" / DETECTORS[0], None, other)


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([], "its list of 'categories' is empty"),
        ([{"id": 1}], "has categories without 'name': entry 0"),
        ([{"id": 1, "name": 3}], "has category names: category 1"),
    ],
)
def test_categories_without_a_name_are_told_with_the_file(tmp_path, categories, message):
    file = tmp_path / "a.json"
    images = [{"id": 1, "file_name": "1.jpg", "width": 4, "height": 4}]
    file.write_text(json.dumps({"images": images, "annotations": [], "categories": categories}))
    with pytest.raises(ValueError, match=f"{file}.*{message}"):
        read_categories(file)


@pytest.mark.parametrize("classes", [None, ("cone", "ball")])
def test_a_coco_file_is_parsed_once_for_its_classes_its_check_and_the_frameworks_loader(
    objects, classes, tmp_path, monkeypatch
):
    monkeypatch.setenv("FOCALNET_CACHE", str(tmp_path))
    read, read_json = [], coco.read_json
    monkeypatch.setattr(coco, "read_json", lambda path, **options: read.append(path) or read_json(path, **options))
    monkeypatch.setattr(json, "load", lambda file: pytest.fail(f"{file.name} is read again"))
    data = replace(objects, classes=classes, size=(64, 48))
    cfg = load_config(ROOT / "configs" / "mmdet/mask_rcnn_focalnet_sample.py", None, data)
    report = check_config(cfg)
    assert report.findings.errors == []
    assert list(report.splits[0].counts) == list(classes[::-1] if classes else OBJECTS)
    assert read == [str(split.annotations) for split in (objects.train, objects.val)]


def test_a_class_that_a_coco_file_lacks_is_named(objects):
    with pytest.raises(ValueError, match=r"'bal', which .* lacks. Did you mean 'ball'"):
        load_config(ROOT / "configs" / DETECTORS[0], None, OwnData(objects.train, None, classes=("bal",)))


def test_a_photo_without_a_label_passes_and_unknown_values_stay():
    renumber = RenumberLoadedLabels(values=[1, 2], ignore=[0])
    assert renumber({"img": 1}) == {"img": 1}
    labels = renumber({"gt_seg_map": np.array([[0, 1, 2, 7, 255]], dtype=np.uint8)})["gt_seg_map"]
    assert labels.tolist() == [[255, 0, 1, 7, 255]]
    assert repr(renumber) == "RenumberLoadedLabels(values=[1, 2], ignore=[0])"


TINY = [
    *(
        f"{split}_dataloader.{key}"
        for split in ("train", "val")
        for key in ("num_workers=0", "persistent_workers=False")
    ),
    "train_dataloader.batch_size=2",
    "train_cfg.max_iters=2",
    "train_cfg.val_interval=2",
    "default_hooks.logger.interval=1",
]


def flags_of(data: OwnData, tmp_path: Path) -> list[str]:
    flags = [f"--size={data.size[0]}x{data.size[1]}"]
    for name, split in (("train", data.train), ("val", data.val)):
        labels = ["labels", split.labels] if split.labels else ["json", split.annotations]
        flags += [f"--{name}-images", str(split.images), f"--{name}-{labels[0]}", str(labels[1])]
    if data.classes:
        (tmp_path / "names.txt").write_text("\n".join(data.classes))
        flags += ["--classes", str(tmp_path / "names.txt"), "--ignore", *map(str, data.ignore)]
    return flags


@pytest.mark.parametrize(
    ("config", "data", "small"),
    [
        (
            "mmseg/upernet_focalnet_sample.py",
            "masks",
            ["model.backbone.embed_dim=4", "model.backbone.depths=(1,1,1,1)"],
        ),
        ("mmdet/mask_rcnn_focalnet_sample.py", "objects", ["model.backbone.embed_dim=4"]),
    ],
)
def test_one_line_trains_on_own_data_and_what_it_leaves_is_a_config_that_tests(
    config, data, small, request, tmp_path, capsys
):
    data = request.getfixturevalue(data)
    widths = "[4,8,16,32]"
    place = "neck" if "mmdet" in config else "decode_head"
    small = [*small, f"model.{place}.in_channels={widths}"]
    if "mmseg" in config:
        small += ["model.auxiliary_head.in_channels=16", "model.decode_head.channels=4"]
    work_dir = tmp_path / "work"
    arguments = [str(ROOT / "configs" / config), "--work-dir", str(work_dir), *flags_of(data, tmp_path)]
    name = f"experiment_name=own_{place}"
    assert train_tool.main([*arguments, "--cfg-options", *TINY, *small, name]) == 0
    assert "own data: " in "".join(capsys.readouterr())
    checkpoint = torch.load(work_dir / "iter_2.pth", weights_only=True)
    assert list(checkpoint["meta"]["dataset_meta"]["classes"]) == list(data.classes or OBJECTS)
    left = next(work_dir.glob("*.py"))
    options = ["test_dataloader.num_workers=0", "test_dataloader.persistent_workers=False", f"{name}_test"]
    arguments = [str(left), str(work_dir / "iter_2.pth"), "--work-dir", str(tmp_path / "tested")]
    assert test_tool.main([*arguments, "--cfg-options", *options]) == 0


def test_a_mistake_on_the_command_line_is_one_line(capsys, tmp_path):
    assert train_tool.main([str(SAMPLE_CONFIG), "--train-images", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("train.py: --train-images goes with --train-labels")
