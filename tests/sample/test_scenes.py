"""The sample dataset: COCO's own tools read it, its formats agree with each other, and it is the same each time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from focalnet_backbone.sample import scenes
from focalnet_backbone.sample.scenes import CATEGORIES, STUFF, THINGS, draw_scene, make_sample_dataset
from focalnet_backbone.system.files import UNFINISHED


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_sample_dataset(tmp_path_factory.mktemp("data") / "sample", train=12, val=4)


def digests(root: Path) -> dict[str, str]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def segment_ids(root: Path, split: str, index: int) -> np.ndarray:
    colours = np.asarray(Image.open(root / "coco" / f"panoptic_{split}" / f"{index:05d}.png")).astype(int)
    return colours @ [1, 256, 65536]


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path):
    first, again, other = (
        digests(make_sample_dataset(tmp_path / name, train=2, val=1, size=64, seed=seed))
        for name, seed in (("first", 3), ("again", 3), ("other", 4))
    )
    assert first == again
    assert first["images/training/00001.jpg"] != other["images/training/00001.jpg"]


def test_the_objects_are_the_same_on_every_machine(root):
    # Written down, so that results on the dataset can be compared. Pixels of photographs may differ by the decoder.
    described = hashlib.sha256()
    for split in ("training", "validation"):
        described.update((root / "coco" / f"instances_{split}.json").read_bytes())
        for path in sorted((root / "annotations" / split).iterdir()):
            described.update(np.asarray(Image.open(path)).tobytes())
    assert described.hexdigest() == "793218af69bd8184f9e3938766675062ddfc9206eff7e1632a3161208811d0d5"


def test_an_image_does_not_depend_on_how_many_there_are(tmp_path, root):
    smaller = digests(make_sample_dataset(tmp_path / "smaller", train=3, val=1))
    larger = digests(root)
    images = [name for name in smaller if name.endswith((".jpg", ".png"))]
    assert len(images) == 12
    assert all(smaller[name] == larger[name] for name in images)


@pytest.mark.parametrize(("split", "count"), [("training", 12), ("validation", 4)])
def test_cocos_own_tools_read_the_polygons_as_the_panoptic_segments(root, split, count):
    coco = COCO(root / "coco" / f"instances_{split}.json")
    assert len(coco.imgs) == count
    assert [category["name"] for category in coco.dataset["categories"]] == list(THINGS)
    panoptic = json.loads((root / "coco" / f"panoptic_{split}.json").read_text())
    for image in panoptic["annotations"]:
        segments = segment_ids(root, split, image["image_id"])
        things = [segment for segment in image["segments_info"] if segment["category_id"] <= len(THINGS)]
        objects = coco.imgToAnns[image["image_id"]]
        assert len(objects) == len(things) >= 1
        for segment, thing in zip(things, objects, strict=True):
            mask = coco.annToMask(thing).astype(bool)
            np.testing.assert_array_equal(mask, segments == segment["id"])
            rows, columns = np.nonzero(mask)
            left, top, width, height = thing["bbox"]
            assert (left, top) == (columns.min(), rows.min())
            assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
            assert thing["area"] == mask.sum()
            assert {k: thing[k] for k in ("category_id", "bbox")} == {k: segment[k] for k in ("category_id", "bbox")}


def test_the_semantic_annotation_gives_each_pixel_the_class_of_its_segment(root):
    panoptic = json.loads((root / "coco" / "panoptic_training.json").read_text())
    assert [c["isthing"] for c in panoptic["categories"]] == [1] * len(THINGS) + [0] * len(STUFF)
    for image in panoptic["annotations"]:
        segments = segment_ids(root, "training", image["image_id"])
        semantic = np.asarray(Image.open(root / "annotations" / "training" / image["file_name"]))
        assert sorted(np.unique(segments)) == sorted(segment["id"] for segment in image["segments_info"])
        for segment in image["segments_info"]:
            assert set(semantic[segments == segment["id"]]) == {segment["category_id"]}


def test_classes_sizes_and_overlap_vary():
    scenes = [draw_scene("training", index, 128, seed=0)[2] for index in range(40)]
    instances = [instance for scene in scenes for instance in scene]
    assert {instance.name for instance in instances} == set(THINGS)
    areas = sorted(instance.mask.sum() for instance in instances)
    assert areas[-len(areas) // 10] > 5 * areas[len(areas) // 10]
    touching = 0
    for scene in scenes:
        total = sum(instance.mask.astype(int) for instance in scene)
        assert total.max() == 1, "an object's mask holds only what is visible of it"
        for instance in scene:
            others = np.pad(total - instance.mask, 1)
            mask = np.pad(instance.mask, 1)
            touching += any((np.roll(mask, 1, axis) & others).any() for axis in (0, 1))
    assert touching > len(instances) / 10


def test_the_splits_share_no_photograph():
    assert not set(scenes.PHOTOGRAPHS["training"]) & set(scenes.PHOTOGRAPHS["validation"])


def test_category_ids_are_one_and_up():
    assert [category["id"] for category in CATEGORIES] == list(range(1, 9))


def test_an_existing_folder_is_refused_and_kept(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="exists already"):
        make_sample_dataset(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(("wrong", "message"), [({"train": 0}, "at least 1, got 0"), ({"size": 32}, "64, got 32")])
def test_wrong_numbers_are_refused_before_anything_is_written(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        make_sample_dataset(tmp_path / "new", **wrong)
    assert not any(tmp_path.iterdir())


def test_an_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    drawn = []

    def interrupted(split, *args):
        drawn.append(split)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return draw_scene(split, *args)

    monkeypatch.setattr(scenes, "draw_scene", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_sample_dataset(tmp_path / "new", train=4, val=1, size=64)
    assert not any(tmp_path.iterdir())


def test_the_tool_writes_from_any_folder_and_says_a_users_error_in_one_line(run_tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, output, _ = run_tool("make_sample_dataset.py", "sample", "--train", "1", "--val", "1", "--size", "64")
    assert (status, output) == (0, "wrote 1 training and 1 validation images to sample\n")
    assert (tmp_path / "sample" / "images" / "validation" / "00001.jpg").is_file()
    (tmp_path / "there").mkdir()
    message = "make_sample_dataset.py: there exists already; delete it or name another folder\n"
    assert run_tool("make_sample_dataset.py", "there") == (2, "", message)


def test_what_a_killed_making_left_is_removed_by_the_next(tmp_path):
    left = tmp_path / f"{UNFINISHED}0123456789abcdef"
    (left / "images").mkdir(parents=True)
    make_sample_dataset(tmp_path / "data", train=1, val=1, size=64)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
