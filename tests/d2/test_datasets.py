"""Datasets given on the command line: read, checked, and put into both kinds of config."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from focalnet_backbone.detectron2.datasets import categories_of, check_registered, read_coco, register
from focalnet_backbone.detectron2.jobs import load_job
from focalnet_backbone.sample.scenes import THINGS
from tests.d2.conftest import TINY

LAZY = Path(__file__).parents[2] / "configs" / "detectron2" / "mask_rcnn_focalnet_tiny_srf_1x.py"


@pytest.fixture
def content(sample) -> dict:
    return json.loads((sample / "coco" / "instances_training.json").read_text())


@pytest.fixture
def images(sample) -> Path:
    return sample / "images" / "training"


def write(folder: Path, content) -> Path:
    path = folder / "annotations.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_classes_are_read_from_the_file_and_known_to_detectron2(sample, images):
    dataset = read_coco(sample / "coco" / "instances_training.json", images)
    assert [category["name"] for category in dataset.categories] == list(THINGS)
    assert dataset.masks == "polygon"
    name = register(dataset)
    assert register(dataset) == name
    assert len(DatasetCatalog.get(name)) == 7
    assert MetadataCatalog.get(name).thing_classes == list(THINGS)
    assert categories_of(name) == dataset.categories


def test_run_length_masks_and_missing_masks_are_told_apart(tmp_path, content, images):
    for annotation in content["annotations"]:
        annotation["segmentation"] = {"size": [64, 64], "counts": "0"}
    assert read_coco(write(tmp_path, content), images).masks == "bitmask"
    del content["annotations"][0]["segmentation"]
    assert read_coco(write(tmp_path, content), images).masks is None


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "annotations.json is not valid JSON"), ([], "not in COCO's detection format"), ({}, "no list of 'images'")],
)
def test_a_file_of_another_kind_is_named(tmp_path, content, images, message):
    with pytest.raises(ValueError, match=message):
        read_coco(write(tmp_path, content), images)


@pytest.mark.parametrize(
    ("file", "folder", "message"), [("no.json", ".", "no annotations"), (__file__, "no", "no fol")]
)
def test_missing_files_are_named(tmp_path, file, folder, message):
    with pytest.raises(FileNotFoundError, match=message):
        read_coco(tmp_path / file, tmp_path / folder)


@pytest.mark.parametrize("config", [TINY, LAZY])
def test_a_dataset_takes_the_place_of_the_configs(config, tmp_path, content, images):
    for annotation in content["annotations"]:
        annotation["segmentation"] = {"size": [64, 64], "counts": "0"}
    content["categories"].append({"id": 9, "name": "cube"})
    dataset = read_coco(write(tmp_path, content), images)
    job = load_job(config)
    job.use_datasets(dataset, dataset)
    assert job.train_names == job.test_names == [str(dataset.annotations)]
    if config == TINY:
        assert (job.cfg.MODEL.ROI_HEADS.NUM_CLASSES, job.cfg.INPUT.MASK_FORMAT) == (5, "bitmask")
    else:
        assert job.cfg.model.roi_heads.box_predictor.num_classes == job.cfg.model.roi_heads.mask_head.num_classes == 5
        assert job.cfg.dataloader.train.mapper.instance_mask_format == "bitmask"
    job.use_datasets(dataset, None)
    assert job.test_names == []


def test_a_missing_coco_is_explained_and_an_unknown_dataset_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"coco_2017_train is not there.*DETECTRON2_DATASETS.*--train-json"):
        check_registered(["coco_2017_train"])
    with pytest.raises(ValueError, match=r"'coco_2017_vall'.* Did you mean 'coco_2017_val'"):
        check_registered(["coco_2017_vall"])
