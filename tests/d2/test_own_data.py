"""A user's own data in the place of a config's: label images for segmenters, COCO files for detectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import ExifTags, Image

from focalnet_backbone.command.train_net import make_parser, run_command
from focalnet_backbone.data_check.detectron2 import check_job
from focalnet_backbone.detectron2.jobs import load_job
from focalnet_backbone.detectron2.own_data import use_own_data
from focalnet_backbone.detectron2.own_datasets import load_labels
from focalnet_backbone.own_data import OwnData, Split
from tests.d2.conftest import TINY, dataset_arguments

CLASSES = ("ball", "tile", "cone", "star", "photograph", "grass", "gravel", "brick")
LAZY = TINY.with_name("tiny_lazy.py")
SEMANTIC = ["MODEL.META_ARCHITECTURE", "SemanticSegmentor"]


@pytest.fixture
def masks(sample: Path) -> OwnData:
    train, val = (
        Split(sample / "images" / folder, labels=sample / "annotations" / folder)
        for folder in ("training", "validation")
    )
    return OwnData(train, val, CLASSES, (0,), (96, 48))


@pytest.fixture
def objects(sample: Path) -> OwnData:
    train, val = (
        Split(sample / "images" / folder, annotations=sample / "coco" / f"instances_{folder}.json")
        for folder in ("training", "validation")
    )
    return OwnData(train, val, size=(96, 48))


def test_a_segmenter_learns_the_labels_of_the_ending_that_was_chosen_in_folders_within(tmp_path):
    for city in ("bonn", "ulm"):
        for folder, names in (("photos", ["1_photo.png"]), ("labels", ["1_color.png", "1_ids.png"])):
            (tmp_path / folder / city).mkdir(parents=True)
            for name in names:
                Image.new("L" if "ids" in name else "RGB", (32, 32)).save(tmp_path / folder / city / name)
    split = Split(tmp_path / "photos", labels=tmp_path / "labels")
    job = load_job(TINY, SEMANTIC)
    use_own_data(job, OwnData(split, None, ("a", "b"), label_ending="_ids.png"))
    images = DatasetCatalog.get(job.train_names[0])
    assert [Path(image["sem_seg_file_name"]).parts[-2:] for image in images] == [
        (c, "1_ids.png") for c in ("bonn", "ulm")
    ]
    found = check_job(job)
    assert found.splits[0].source == str(tmp_path / "labels")


def test_a_segmenter_learns_label_images_whose_ignored_values_are_none(masks):
    job = load_job(TINY, SEMANTIC)
    use_own_data(job, masks)
    assert job.cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 8
    assert job.best_metric == "sem_seg/mIoU"
    assert any("value 0 are of no class" in note for note in job.notes)
    (name,) = job.train_names
    assert MetadataCatalog.get(name).stuff_classes == list(CLASSES)
    for image in DatasetCatalog.get(name):
        stem = Path(image["file_name"]).stem
        labels = np.array(Image.open(masks.train.labels / f"{stem}.png")).astype(int)
        expected = np.where(labels == 0, 255, labels - 1)
        assert np.array_equal(load_labels(image["sem_seg_file_name"]), expected)
        assert (image["height"], image["width"]) == labels.shape
    sample = job.train_mapper()(dict(DatasetCatalog.get(name)[0]))
    assert set(sample["sem_seg"].unique().tolist()) <= {*range(8), 255}


def test_labels_with_colours_are_read_by_their_values(tmp_path, masks):
    for folder in ("photos", "labels"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "photos" / "1.jpg")
    label = Image.fromarray(np.array([[0, 1, 2], [3, 255, 0]], dtype=np.uint8))
    label.putpalette([channel for value in range(256) for channel in (255 - value, 10, value)])
    label.save(tmp_path / "labels" / "1.png")
    job = load_job(TINY, SEMANTIC)
    use_own_data(job, OwnData(Split(tmp_path / "photos", tmp_path / "labels"), None, ("a", "b", "c"), (1,)))
    (image,) = DatasetCatalog.get(job.train_names[0])
    assert load_labels(image["sem_seg_file_name"]).tolist() == [[0, 255, 1], [2, 255, 0]]
    assert job.test_names == []


def test_photos_are_listed_as_other_hosts_do_whatever_else_lies_beside_them(tmp_path):
    photos, labels, elsewhere = (tmp_path / name for name in ("photos", "labels", "elsewhere"))
    for folder in (photos / "folder.jpg", labels / "linked", elsewhere):
        folder.mkdir(parents=True)
    (photos / "linked").symlink_to(elsewhere)
    (photos / "._1.jpg").write_bytes(b"left by a system")
    (photos / ".thumbs").mkdir()
    Image.new("RGB", (3, 2)).save(photos / ".thumbs" / "1.jpg")
    for photo, label in ((photos / "1.jpg", labels / "1.png"), (elsewhere / "2.jpg", labels / "linked" / "2.png")):
        turned = Image.Exif()
        turned[ExifTags.Base.Orientation] = 6
        Image.new("RGB", (3, 2)).save(photo, exif=turned)
        Image.fromarray(np.array([[1, 0], [0, 1], [1, 1]], dtype=bool)).save(label)  # One bit a pixel.
    job = load_job(TINY, SEMANTIC)
    use_own_data(job, OwnData(Split(photos, labels), None, ("a", "b")))
    images = DatasetCatalog.get(job.train_names[0])
    assert [Path(image["file_name"]).name for image in images] == ["1.jpg", "2.jpg"]
    assert [(image["width"], image["height"]) for image in images] == [(2, 3), (2, 3)]
    assert load_labels(images[1]["sem_seg_file_name"]).tolist() == [[1, 0], [0, 1], [1, 1]]
    assert job.train_mapper()(dict(images[0]))["sem_seg"].unique().tolist() in ([0, 1], [0, 1, 255])
    findings = check_job(job).findings
    assert findings.errors == []
    assert f"{photos}: 1 photo in a hidden folder: {photos}/.thumbs/1.jpg; it is left out" in findings.warnings


def test_a_label_with_a_value_that_is_no_class_is_found_before_training(masks, tmp_path):
    job = load_job(TINY, SEMANTIC)
    use_own_data(job, replace(masks, classes=CLASSES[:-1]))
    (error,) = (line for line in check_job(job).findings.errors if "train" in line)
    assert "7" in error


@pytest.mark.parametrize("config", [TINY, LAZY])
def test_a_detector_learns_coco_files_at_a_size(config, objects):
    job = load_job(config)
    use_own_data(job, objects)
    assert "4 classes: ball, tile, cone, star" in job.notes
    assert job.train_names == [str(objects.train.annotations.resolve())]
    for mapper in (job.train_mapper(), job.test_mapper()):
        image = mapper({"file_name": str(objects.train.images / "00001.jpg"), "annotations": []})["image"]
        assert min(image.shape[1:]) <= 60
        assert max(image.shape[1:]) <= 96


@pytest.mark.parametrize("config", [TINY, LAZY])
def test_what_a_training_saves_knows_its_data(config, objects, tmp_path):
    job = load_job(config)
    use_own_data(job, objects)
    job.save(tmp_path / "config.yaml")
    names = job.train_names + job.test_names
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    if config == TINY:
        again = load_job(tmp_path / "config.yaml")
        assert again.train_names + again.test_names == names
        assert all(name in DatasetCatalog.list() for name in names)


@pytest.mark.parametrize(
    ("overrides", "data", "message"),
    [
        ([], "masks", "label images need a model of semantic segmentation; append MODEL.META_ARCHITECTURE"),
        (SEMANTIC, "objects", "learns from label images"),
    ],
)
def test_data_of_another_kind_is_refused(overrides, data, message, request):
    with pytest.raises(ValueError, match=message):
        use_own_data(load_job(TINY, overrides), request.getfixturevalue(data))


def test_other_classes_than_the_files_are_refused(objects):
    data = OwnData(objects.train, objects.val, classes=("ball", "car"))
    with pytest.raises(ValueError, match="detectron2 takes all of them, ball, tile, cone, star"):
        use_own_data(load_job(TINY), data)


def test_one_line_trains_and_evaluates_a_segmenter(masks, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    arguments = ["--config-file", str(TINY), "--classes", str(tmp_path / "names.txt"), "--ignore", "0", "--size", "64"]
    for name, split in (("train", masks.train), ("val", masks.val)):
        arguments += [f"--{name}-images", str(split.images), f"--{name}-labels", str(split.labels)]
    small = ["MODEL.SEM_SEG_HEAD.CONVS_DIM", "8", "MODEL.SEM_SEG_HEAD.NORM", "", "SOLVER.MAX_ITER", "2"]
    output = ["OUTPUT_DIR", str(tmp_path / "out"), "SEED", "0"]
    run_command([*arguments, *SEMANTIC, *small, *output])
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "own data: 8 classes: ball" in log
    assert "mIoU " in log
    checkpoint = torch.load(tmp_path / "out" / "model_final.pth", weights_only=True)
    assert [category["name"] for category in checkpoint["run"]["categories"]] == list(CLASSES)
    # The config that it leaves is enough to evaluate again.
    run_command(["--config-file", str(tmp_path / "out" / "config.yaml"), "--eval-only", "--resume"])


def test_the_command_line_is_that_of_the_other_hosts(sample):
    arguments = dataset_arguments(sample)
    assert make_parser().parse_args(["--config-file", str(TINY), *arguments, "--size", "64x32"]).size == (64, 32)
