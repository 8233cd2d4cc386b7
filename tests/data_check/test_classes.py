"""A config's classes against those of the files: order, spelling, number, and the table."""

from __future__ import annotations

import json
import re

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from mmdet.registry import DATASETS
from mmengine.registry import DefaultScope

from tests.data_check.conftest import make_coco


@pytest.fixture
def data(tmp_path):
    return make_coco(tmp_path / "train"), make_coco(tmp_path / "val", seed=1)


def swap(content):
    content["categories"].reverse()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ("tile", "ball")}, r"another order than metainfo.classes.*write classes=\('ball', 'tile'\)"),
        ({"classes": ("bahl", "tile")}, "not among its categories: 'bahl'.*Did you mean 'ball'"),
        ({"classes": ("ball", "tiel")}, "not among its categories: 'tiel'.*Did you mean 'tile'"),
        ({"classes": ("Ball", "tile")}, "not among its categories: 'Ball'"),
        ({"classes": ("star", "ball", "tile"), "count": 3}, "not among its categories: 'star'"),
        ({"classes": ("ball", "ball", "tile"), "count": 3}, "1 class more than once in metainfo.classes: 'ball'"),
        ({"classes": ("cat", "dog")}, r"none of the 2 classes .* set metainfo=dict\(classes=\('ball', 'tile'\)\)"),
        ({"classes": "ball", "count": 1}, r"metainfo.classes is the text 'ball'.* write classes=\('ball',\)"),
        ({"metainfo": {}, "count": 80}, "none of the 80 classes of the config"),
        ({"count": 3}, r"model.roi_head.bbox_head\[0\].num_classes is 3, but the data has 2"),
    ],
)
def test_mmdetection_s_classes_are_held_against_the_file_s(check, data, options, message):
    found = check.mmdet(*data, **options)
    assert found.status == 2
    assert any(re.search(message, line) for line in found.errors), found.errors


def test_what_is_refused_is_what_mmdetection_would_get_wrong(data):
    """The order of `metainfo.classes` makes no difference to the labels: the file's does."""
    train, _ = data
    with DefaultScope.overwrite_default_scope("mmdet"):
        labels = []
        for classes in (("ball", "tile"), ("tile", "ball")):
            config = {"type": "CocoDataset", "ann_file": str(train / "coco.json"), "metainfo": {"classes": classes}}
            dataset = DATASETS.build({**config, "serialize_data": False, "data_prefix": {"img": ""}})
            labels.append([o["bbox_label"] for image in dataset.data_list for o in image["instances"]])
    assert labels[0] == labels[1] == [0, 1] * 4


def test_a_subset_of_the_categories_is_told_and_trained_on(check, data):
    found = check.mmdet(*data, classes=("tile",), count=1)
    assert found.status == 0, found.errors
    assert any(
        "1 category not among the config's classes: 'ball'; their 4 objects are left out" in w for w in found.warnings
    )


def test_of_a_category_that_is_neither_wanted_nor_there_nothing_is_told(check, tmp_path):
    def add_kind(content: dict) -> None:
        content["categories"].insert(0, {"id": 7, "name": "things", "supercategory": "none"})

    found = check.mmdet(make_coco(tmp_path / "train", add_kind), make_coco(tmp_path / "val", add_kind, seed=1))
    assert (found.errors, found.warnings) == ([], [])


def test_files_of_different_order_are_told_by_both_hosts(check, tmp_path, data):
    other = make_coco(tmp_path / "other", swap)
    assert "another order than metainfo.classes" in check.mmdet(data[0], other).errors[-1]
    # detectron2 goes by the ids, which are the same.
    assert check.detectron2(data[0], other).status == 0


@pytest.mark.parametrize("host", ["detectron2", "lazy"])
def test_detectron2_s_files_have_to_have_the_same_classes(check, tmp_path, data, host):
    other = make_coco(tmp_path / "other", lambda content: content["categories"][1].update(name="tiel"))
    found = getattr(check, host)(data[0], other)
    assert "other/coco.json has other classes than" in found.errors[-1]
    assert "ball, tiel, there ball, tile" in found.errors[-1]


@pytest.mark.parametrize("host", ["detectron2", "lazy", "mmdet"])
def test_a_right_dataset_is_shown_as_a_table(check, tmp_path, host):
    def add(content):
        content["images"].append({**content["images"][0], "id": 9, "file_name": "nothing.png"})
        content["annotations"][0]["iscrowd"] = 1
        content["annotations"][0]["segmentation"] = {"size": [32, 40], "counts": [100, 50, 32 * 40 - 150]}

    train = make_coco(tmp_path / "train", add)
    (train / "images" / "001.png").with_name("nothing.png").write_bytes((train / "images" / "001.png").read_bytes())
    found = getattr(check, host)(train, make_coco(tmp_path / "val", seed=1))
    assert (found.status, found.errors, found.warnings) == (0, [], [])
    rows = [re.split(r"  +", line) for line in found.table.splitlines()]
    assert ["train", str(train / "coco.json"), "5", "40x32", "1", "7", "1"] in rows
    assert ["ball", "3", "4"] in rows
    assert ["tile", "4", "4"] in rows


def test_a_name_that_would_steer_the_terminal_is_escaped(check, tmp_path):
    rename = lambda content: content["categories"][0].update(name="b\x1b[31mall")  # noqa: E731
    found = check.detectron2(make_coco(tmp_path / "train", rename), make_coco(tmp_path / "val", rename, seed=1))
    assert found.status == 0
    assert "\x1b" not in found.table
    assert r"b\x1b[31mall" in found.table


def test_a_photo_in_both_splits_is_told(check, data):
    train, _ = data
    for host in ("detectron2", "mmdet"):
        found = getattr(check, host)(train, train)
        assert found.status == 0
        assert any("4 photos trained on too" in line for line in found.warnings)


def test_run_lengths_need_the_mask_format_of_bit_masks(check, tmp_path, data):
    def encode(content):
        for annotation in content["annotations"]:
            annotation["segmentation"] = {"size": [32, 40], "counts": [100, 50, 32 * 40 - 150]}

    train = make_coco(tmp_path / "rle", encode)
    assert check.detectron2(train, data[1]).status == 0  # The format follows the file.
    DatasetCatalog.pop("by_name", None)
    MetadataCatalog.pop("by_name", None)
    from detectron2.data.datasets import register_coco_instances

    register_coco_instances("by_name", {}, str(train / "coco.json"), str(train / "images"))
    try:
        from tests.d2.conftest import TINY

        names = ["DATASETS.TRAIN", "('by_name',)", "DATASETS.TEST", "('by_name',)", "MODEL.ROI_HEADS.NUM_CLASSES"]
        found = check.run(TINY, *names, "2")
        assert "8 segmentations are run lengths, and the mask format is polygon" in found.errors[-1]
        found = check.run(TINY, *names, "3", "INPUT.MASK_FORMAT", "bitmask")
        assert "has 2 classes, and the model 3; set MODEL.ROI_HEADS.NUM_CLASSES to 2" in found.errors[-1]
    finally:
        DatasetCatalog.remove("by_name")
        MetadataCatalog.remove("by_name")


def test_the_evaluator_has_to_read_the_same_file(check, data, tmp_path):
    found = check.mmdet(*data, f"val_evaluator.ann_file={tmp_path}/none.json")
    assert "val_evaluator.ann_file is" in found.errors[-1]
    assert "which is not there" in found.errors[-1]
    found = check.mmdet(*data, f"val_evaluator.ann_file={data[0]}/coco.json")
    assert "name one file" in found.errors[-1]
    found = check.mmdet(*data, f"train_dataloader.dataset.data_root={tmp_path}/nowhere")
    assert f"no dataset at {tmp_path}/nowhere" in found.errors[-1]
    assert "Expected in that folder: images, coco.json" in found.errors[-1]


def test_a_model_of_boxes_needs_no_outlines(check, tmp_path):
    def strip(content):
        for annotation in content["annotations"]:
            del annotation["segmentation"]

    bare, other = make_coco(tmp_path / "bare", strip), make_coco(tmp_path / "other", strip, seed=1)
    assert check.mmdet(bare, other, masks=False).status == 0
    assert check.detectron2(bare, other, "MODEL.MASK_ON", "False").status == 0
    assert "8 objects without a 'segmentation'" in check.detectron2(bare, other).errors[-1]


def test_mmdetection_s_other_formats_and_wrappers_are_checked_too(check, data, tmp_path):
    train, _ = data
    steps = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "with_bbox": True}]
    whole = {"type": "CocoDataset", "data_root": str(train), "ann_file": "coco.json", "data_prefix": {"img": "images"}}
    whole |= {"metainfo": {"classes": ("tile", "ball")}, "pipeline": steps}
    repeated = {"type": "RepeatDataset", "times": 2, "dataset": whole}
    joined = {"type": "ConcatDataset", "datasets": [repeated, whole]}
    path = tmp_path / "wrapped.py"
    path.write_text(f'default_scope = "mmdet"\nmodel = {{}}\ntrain_dataloader = dict(dataset={joined})\n')
    assert "another order" in check.run(path).errors[-1]

    listed = [{"img_path": "001.png", "height": 32, "width": 40, "instances": []} for _ in range(2)]
    listed[0]["instances"] = [{"bbox": [1, 2, 9, 9], "bbox_label": 5, "ignore_flag": 0}]
    (train / "list.json").write_text(json.dumps({"metainfo": {"classes": ["ball", "tile"]}, "data_list": listed}))
    plain = {"type": "BaseDetDataset", "data_root": str(train), "ann_file": "list.json", "pipeline": steps}
    plain["data_prefix"] = {"img_path": "images"}
    path.write_text(f'default_scope = "mmdet"\nmodel = {{}}\ntrain_dataloader = dict(dataset={plain})\n')
    assert "1 label that is no class: 5; there are 2 classes" in check.run(path).errors[-1]


def test_configs_that_are_none_are_one_line(check, tmp_path):
    assert check.run(tmp_path / "no.yaml").errors == [f"no config at {tmp_path / 'no.yaml'}"]
    path = tmp_path / "empty.py"
    path.write_text('default_scope = "mmseg"\n')
    assert "has no train_dataloader, val_dataloader, test_dataloader" in check.run(path).errors[-1]
    path.write_text("_base_ = [")
    assert check.run(path).status == 2


def test_the_check_leaves_the_random_numbers_alone(check, data):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    check.detectron2(*data)
    assert torch.equal(torch.rand(1), expected)
