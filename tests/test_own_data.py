"""A user's own data on the command line: which labels belong to which photos, and what is said of mistakes."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from focalnet_backbone import own_data


def make_files(root: Path, **folders: list[str]) -> list[Path]:
    paths = []
    for folder, names in folders.items():
        paths.append(root / folder)
        for name in names:
            path = root / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return paths


@pytest.mark.parametrize(
    ("photos", "labels", "suffixes", "label_suffix"),
    [
        (["1.jpg", "2.jpg"], ["1.png", "2.png"], [".jpg"], ".png"),
        (["1.jpg", "2.JPG", "3.png"], ["1.png", "2.png", "3.png"], [".JPG", ".jpg", ".png"], ".png"),
        (["a_1.png", "a_10.png"], ["a_1_L.png", "a_10_L.png"], [".png"], "_L.png"),
        (["x_rgb.png", "y_rgb.png"], ["x_mask.png", "y_mask.png"], ["_rgb.png"], "_mask.png"),
        (
            ["bonn/bonn_1_leftImg8bit.png", "ulm/ulm_1_leftImg8bit.png"],
            ["bonn/bonn_1_gtFine_labelIds.png", "ulm/ulm_1_gtFine_labelIds.png"],
            ["_leftImg8bit.png"],
            "_gtFine_labelIds.png",
        ),
        (["1.jpg", "2.jpg", "3.jpg"], ["2.png", "3.png", "30.png"], [".jpg"], ".png"),
        (["img-1.5.jpg", "img-2.5.jpg"], ["img-1.5.png", "img-2.5.png"], [".jpg"], ".png"),
        (["1.jpg", ".thumbs/1.gif"], ["1.png", ".ipynb_checkpoints/1-checkpoint.png"], [".jpg"], ".png"),
    ],
)
def test_the_endings_of_photos_and_labels_are_found(tmp_path, photos, labels, suffixes, label_suffix):
    folders = make_files(tmp_path, photos=photos, labels=labels)
    assert own_data.find_suffixes(*folders) == (suffixes, label_suffix)


@pytest.mark.parametrize(
    ("photos", "labels", "error", "message"),
    [
        (["1.jpg"], ["notes.txt"], FileNotFoundError, "no label images in .*labels"),
        (["notes.txt"], ["1.png"], FileNotFoundError, "no photos in .*photos"),
        (["a.jpg"], ["b.png"], ValueError, r"a\.jpg has no label in .*a\.png"),
        (["1.jpg", "2.jpg"], [f"{i}_{kind}.png" for i in (1, 2) for kind in "ab"], ValueError, "_a.png and _b.png"),
    ],
)
def test_folders_that_do_not_go_together_are_named(tmp_path, photos, labels, error, message):
    folders = make_files(tmp_path, photos=photos, labels=labels)
    with pytest.raises(error, match=message):
        own_data.find_suffixes(*folders)


def test_of_several_images_beside_a_photo_the_named_ending_is_its_label(tmp_path):
    kinds = ("color", "labelIds", "labelTrainIds")
    folders = make_files(
        tmp_path,
        leftImg8bit=[f"zürich/zürich_{i}_leftImg8bit.png" for i in (1, 2)],
        gtFine=[f"zürich/zürich_{i}_gtFine_{kind}.png" for i in (1, 2) for kind in kinds],
    )
    with pytest.raises(ValueError, match=r"_gtFine_color\.png and .*; choose by --label-ending"):
        own_data.find_suffixes(*folders)
    found = own_data.find_suffixes(*folders, "_labelTrainIds.png")
    assert found == (["_leftImg8bit.png"], "_gtFine_labelTrainIds.png")
    with pytest.raises(FileNotFoundError, match=r"no image in .*gtFine has a name that ends in _ids\.png"):
        own_data.find_suffixes(*folders, "_ids.png")


def test_labels_within_the_folder_of_photos_are_no_photos(tmp_path):
    make_files(tmp_path, photos=["1.jpg", "2.jpg", "labels/1.png", "labels/2.png"])
    folders = (tmp_path / "photos", tmp_path / "photos" / "labels")
    assert own_data.find_suffixes(*folders) == ([".jpg"], ".png")
    make_files(tmp_path, photos=["3.png", "labels/3.png"])
    with pytest.raises(ValueError, match=r"labels lies within .*photos, where labels would be"):
        own_data.find_suffixes(*folders)


def read(*arguments: object) -> own_data.OwnData | None:
    parser = argparse.ArgumentParser()
    own_data.add_arguments(parser)
    return own_data.read_arguments(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    make_files(
        tmp_path, photos=["1.jpg"], labels=["1.png"], sorted=["dog/1.jpg", "cat/2.jpg", ".cache/3.jpg", "@eaDir/4.jpg"]
    )
    (tmp_path / "names.txt").write_text("\ufeff# of a city\nroad\n\n car \nsky\n", encoding="utf-8")
    (tmp_path / "one.txt").write_text("road\n")
    (tmp_path / "twice.txt").write_text("road\nroad\n")
    (tmp_path / "red.txt").write_text("sky\n\x1b[31mroad\n")
    (tmp_path / "train.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


MASKS = ("--train-images", "photos", "--train-labels", "labels")
COCO = ("--train-images", "photos", "--train-json", "train.json")


@pytest.mark.parametrize(
    ("ignore", "values"), [([3], [0, 1, 2]), ([0], [1, 2, 3]), ([1, 9], [0, 2, 3]), ([], [0, 1, 2])]
)
def test_classes_are_the_values_that_are_not_ignored_in_order(folder, ignore, values):
    flags = ["--ignore", *ignore] if ignore else []
    data = read(*MASKS, "--classes", "names.txt", *flags, "--size", "256x192")
    assert data.classes == ("road", "car", "sky")
    assert data.label_values == values
    assert data.size == (256, 192)
    assert data.val is None


def test_a_folder_of_photos_for_each_class_is_data_for_classifiers(folder):
    data = read("--train-images", "sorted")
    assert (data.kind, data.classes) == ("folders", None)
    assert own_data.list_classes(data.train.images) == ["cat", "dog"]


def test_no_arguments_are_no_data(folder):
    assert read() is None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--train-images", "photos"], ValueError, "--train-labels or with --train-json.* photos does not have two"),
        (["--train-images", "sorted", "--classes", "names.txt"], ValueError, "of folders, the names"),
        (["--train-images", "sorted", "--ignore", 1], ValueError, "--ignore is for values of label images"),
        ([*MASKS, "--classes", "names.txt", "--val-images", "sorted"], ValueError, "or both be folders of classes"),
        (["--train-labels", "labels"], ValueError, "--train-labels and --train-images go together"),
        ([*COCO, "--train-labels", "labels"], ValueError, "one of them"),
        ([*MASKS], ValueError, "labels need --classes"),
        ([*MASKS, "--classes", "none.txt"], FileNotFoundError, "no names of classes at none.txt"),
        ([*MASKS, "--classes", "one.txt"], ValueError, "two classes or more"),
        ([*MASKS, "--classes", "twice.txt"], ValueError, "'road' more than once"),
        ([*MASKS, "--classes", "red.txt"], ValueError, r"cannot be printed: '\\x1b\[31mroad'"),
        ([*MASKS, "--classes", "names.txt", "--ignore", 300], ValueError, "0 to 255, got 300"),
        ([*COCO, "--ignore", 1], ValueError, "--ignore is for values of label images"),
        ([*COCO, "--label-ending", "_a.png"], ValueError, "--label-ending is for label images"),
        (
            ["--train-images", "nowhere", "--train-json", "train.json"],
            FileNotFoundError,
            "no folder of photos at nowhere",
        ),
        (["--val-images", "photos", "--val-json", "no.json"], FileNotFoundError, "no annotations at no.json"),
        ([*COCO, "--val-images", "photos", "--val-labels", "labels"], ValueError, "both have label images, or both"),
        (["--size", "64"], ValueError, "--size describe"),
        (["--label-ending", "_a.png"], ValueError, "--label-ending describe"),
    ],
)
def test_arguments_that_are_wrong_are_named(folder, arguments, error, message):
    with pytest.raises(error, match=message):
        read(*arguments)


@pytest.mark.parametrize("size", ["0x4", "a", "4x", "4x4x4", "-1"])
def test_a_size_that_is_none_is_refused(folder, capsys, size):
    with pytest.raises(SystemExit):
        read(*COCO, f"--size={size}")
    assert "width and height" in capsys.readouterr().err


def test_colours_of_classes_differ():
    colors = own_data.palette(60)
    assert len(set(map(tuple, colors))) == 60
    assert all(0 <= part <= 255 for color in colors for part in color)
