"""Spoilt datasets of label images: each kind is told in one line before anything is trained."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from focalnet_backbone.data_check.labels import LabelReader
from focalnet_backbone.data_check.photos import PhotoReader
from focalnet_backbone.system.facts import Passing
from tests.data_check.conftest import MMSEG, make_scenes

PHOTO, LABEL = "images/training/002.jpg", "annotations/training/002.png"


def save(name: str, pixels: np.ndarray, mode: str | None = None, **options: object):
    """Replace a file by these pixels."""

    def change(root: Path) -> None:
        image = Image.fromarray(pixels)
        (image.convert(mode) if mode else image).save(root / name, **options)

    return change


def hide(*folders: str):
    """Put copies of a photo and of a label where systems and notebooks keep previews."""

    def change(root: Path) -> None:
        for folder in folders:
            (root / folder).mkdir(parents=True)
            name = PHOTO if folder.startswith("images") else LABEL
            (root / folder / Path(name).name).write_bytes((root / name).read_bytes())

    return change


def write(name: str, content: bytes):
    return lambda root: (root / name).write_bytes(content)


def cut(name: str):
    """Leave out the second half of a file."""
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[: (root / name).stat().st_size // 2])


def turn(root: Path, orientation: int = 6) -> None:
    """Let EXIF turn a photo, by a quarter or (3) by a half."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open(root / PHOTO).save(root / PHOTO, exif=exif)


def every_label(convert, split="training"):
    """Convert the values of all labels of a split."""

    def change(root: Path) -> None:
        for path in (root / "annotations" / split).iterdir():
            values = convert(np.asarray(Image.open(path)))
            Image.fromarray(values.astype(np.uint8)).save(path)

    return change


ONES = np.ones((24, 32), np.uint8)
MIXED = np.arange(24 * 32).reshape(24, 32) % 3
ERRORS = {
    "value beyond classes": (save(LABEL, np.where(MIXED == 1, 7, MIXED).astype(np.uint8)), r"002.png \(value 7\)"),
    "values beyond classes": (save(LABEL, (MIXED + 3).astype(np.uint8)), r"002.png \(value 3 and 2 more\)"),
    "value beyond, in validation": (save(LABEL.replace("training", "validation"), ONES * 9), r"002.png \(value 9\)"),
    "other size": (save(LABEL, ONES[:12]), r"002.png \(32x12, its photo 32x24\)"),
    "other size, in validation": (save(LABEL.replace("training", "validation"), ONES[:, :9]), r"002.png \(9x24, its"),
    "turned photo": (turn, r"002.png \(32x24, its photo 24x32\); the loader turns the photo and not the label"),
    "16 bits": (save(LABEL, (MIXED * 149).astype(np.uint16)), r"002.png \(value 298 would become 42\)"),
    "colours": (save(LABEL, np.dstack([ONES * 200, ONES, ONES])), r"1 label in colour: .*002.png \(RGB\)"),
    "colours with alpha": (save(LABEL, np.dstack([ONES] * 4)), r"1 label in colour: .*002.png \(RGBA\)"),
    "grey with alpha": (save(LABEL, ONES, "LA"), r"1 label in colour: .*002.png \(LA\)"),
    "label of text": (write(LABEL, b"text"), "1 label cannot be read: .*002.png"),
    "empty label": (write(LABEL, b""), "1 label is empty: .*002.png"),
    "half a label": (cut(LABEL), "1 label cannot be read: .*002.png"),
    "no label": (lambda root: (root / LABEL).unlink(), "1 photo without a label: .*002.jpg has no label, expected"),
    "no labels": (lambda root: [p.unlink() for p in (root / LABEL).parent.iterdir()], "3 photos without a label"),
    "photo of text": (write(PHOTO, b"text"), "1 photo cannot be read: .*002.jpg"),
    "empty photo": (write(PHOTO, b""), "1 photo is empty: .*002.jpg"),
    "half a photo": (cut(PHOTO), "1 photo cannot be read: .*002.jpg"),
    "all ignored": (every_label(lambda values: values * 0 + 255), "3 labels without a pixel of any class"),
    "one class": (every_label(lambda values: values * 0), "all labels have one class only, 'a'"),
    "mask of 0 and 255": (
        every_label(lambda values: (values > 0) * 255),
        "all labels have one class only, 'a': .* 255",
    ),
    "numbers from 1": (every_label(lambda values: values + 1), r"3 labels with values that are no class: .*value 3\)"),
}
WARNINGS = {
    "label without photo": (lambda root: (root / PHOTO).unlink(), "1 label without a photo: .*002.png"),
    "photo of other ending": (
        lambda root: (root / PHOTO).rename((root / PHOTO).with_suffix(".jpeg")),
        "1 photo of another ending: .*002.jpeg",
    ),
    "photo behind a broken link": (
        lambda root: (root / PHOTO).with_name("9.jpg").symlink_to("nowhere.jpg"),
        "1 photo whose link leads nowhere: .*9.jpg",
    ),
    "folder behind a broken link": (
        lambda root: (root / "images/training/more").symlink_to("nowhere"),
        "1 link that leads nowhere: .*training/more; a folder would be read",
    ),
    "photos of a telephone": (
        lambda root: (root / PHOTO).with_name("IMG_1.HEIC").touch(),
        "1 photo of a format that is not read: .*IMG_1.HEIC; it is left out: convert it to JPEG or PNG",
    ),
    "photos in hidden folders": (
        hide("images/training/.thumbs", "images/training/@eaDir/002.jpg", "annotations/training/.thumbs"),
        "2 photos in a hidden folder: .*.thumbs/002.jpg, .*@eaDir/002.jpg/002.jpg; it is left out",
    ),
    "photo in capitals": (
        lambda root: (root / PHOTO).rename((root / PHOTO).with_suffix(".JPG")),
        "1 photo of another ending: .*002.JPG",
    ),
    "one all ignored": (save(LABEL, ONES * 255), "1 label without a pixel of any class: .*002.png"),
    "class without pixel": (every_label(lambda values: values % 2), "1 class without a pixel: 'c'"),
    "label in JPEG": (save(LABEL, ONES, format="JPEG", quality=100, subsampling=0), "1 label in JPEG: .*002.png"),
    "photo half turned": (
        save(
            PHOTO,
            np.dstack([ONES * 9] * 3),
            exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0",
        ),
        "1 label whose photo EXIF turns: .*002.jpg",
    ),
    "same photos": (
        lambda root: [
            (path.unlink(), path.symlink_to(root / "images" / "training" / path.name))
            for path in (root / "images" / "validation").iterdir()
        ],
        "3 photos trained on too",
    ),
}
NO_TEXT = os.fsdecode(b"\xff")
"""A name that is none in UTF-8, as old archives leave them."""
RIGHT = {
    "name of other letters": lambda root: [
        (root / name).rename((root / name).with_name(f"{NO_TEXT}é{Path(name).suffix}")) for name in (PHOTO, LABEL)
    ],
    "nothing changed": lambda root: None,
    "16 bits of low values": save(LABEL, MIXED.astype(np.uint16)),
    "one bit": save(LABEL, np.eye(24, 32, dtype=bool)),
    "palette": save(LABEL, (MIXED).astype(np.uint8), "P"),
    "grey photo": save(PHOTO, ONES * 77),
    "some ignored": save(LABEL, np.where(MIXED == 1, 255, MIXED).astype(np.uint8)),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_would_stop_a_training_or_spoil_it_is_one_line(check, tmp_path, name):
    change, message = ERRORS[name]
    root = make_scenes(tmp_path / "data")
    change(root)
    found = check.mmseg(root)
    assert found.status == 2
    assert re.search(message, found.errors[-1]), found.errors
    assert len(found.errors) == 1, found.errors


@pytest.mark.parametrize("name", WARNINGS)
def test_what_may_be_meant_is_told_and_trained_on(check, tmp_path, name):
    change, message = WARNINGS[name]
    root = make_scenes(tmp_path / "data")
    change(root)
    found = check.mmseg(root)
    assert found.status == 0, found.errors
    assert any(re.search(message, line) for line in found.warnings), found.warnings


@pytest.mark.parametrize("name", RIGHT)
def test_labels_and_photos_of_any_kind_that_the_loader_reads_are_right(check, tmp_path, name):
    root = make_scenes(tmp_path / "data")
    RIGHT[name](root)
    found = check.mmseg(root)
    assert (found.status, found.errors, found.warnings) == (0, [], [])


@pytest.mark.parametrize("other", [1, 0])
def test_parts_of_a_training_are_judged_together(check, tmp_path, other):
    """A part may hold one class, and leave photos and labels to another part."""
    root = make_scenes(tmp_path / "data")
    every_label(lambda values: values * 0)(root)
    save(LABEL, (MIXED * other).astype(np.uint8))(root)
    Image.open(root / PHOTO).save((root / PHOTO).with_suffix(".png"))
    (root / PHOTO).unlink()
    parts = "[dict(**data, data_prefix=train, pipeline=steps, img_suffix=suffix) for suffix in ('.jpg', '.png')]"
    text = MMSEG.replace(
        "dict(**data, data_prefix=train, pipeline=steps)", f"dict(type='ConcatDataset', datasets={parts})"
    )
    values = {"CLASS_COUNT": 3, "CLASSES": "('a', 'b', 'c')", "ROOT": root, "SETTINGS": ""}
    config = tmp_path / "parts.py"
    config.write_text(re.sub("|".join(values), lambda found: str(values[found.group()]), text))
    found = check.run(config)
    if other:
        assert (found.status, found.errors, found.warnings) == (0, [], [])
    else:
        assert [line.count("all labels have one class only, 'a'") for line in found.errors] == [1]


def test_pixels_are_counted_as_the_loader_gives_them(check, tmp_path):
    root = make_scenes(tmp_path / "data")
    labels = [np.asarray(Image.open(path)) for path in sorted((root / "annotations" / "training").iterdir())]
    counts = np.bincount(np.concatenate(labels, axis=None), minlength=3)
    rows = [line.split() for line in check.mmseg(root).table.replace(",", "").splitlines()]
    assert [[name, str(counts[i])] for i, name in enumerate("abc")] == [
        row[:2] for row in rows if row and row[0] in "abc"
    ]

    # With reduce_zero_label, 0 is ignored, and 1 is the first class.
    found = check.mmseg(root, settings="reduce_zero_label=True", classes=("b", "c"), count=2)
    assert (found.status, found.warnings) == (0, [])
    rows = [line.split() for line in found.table.replace(",", "").splitlines()]
    assert [["b", str(counts[1])], ["c", str(counts[2])]] == [row[:2] for row in rows if row and row[0] in "bc"]
    assert next(row for row in rows if row and row[0] == "train")[-1] == str(counts[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 4}, "model.decode_head.num_classes is 4, but the data has 3"),
        ({"classes": "abc"}, r"metainfo.classes is the text 'abc'.* write classes=\('abc',\)"),
        ({"settings": "reduce_zero_label=True"}, ""),
        ({"settings": 'img_suffix=".png"'}, r"no image in .*reads \(\*.png\); it has files that end in .jpg"),
        ({"settings": 'seg_map_suffix=".tif"'}, "3 photos without a label: .*000.tif"),
        ({"settings": 'img_sufix=".png"'}, "cannot be built: TypeError: .*img_sufix"),
        ({"classes": tuple(map(str, range(300))), "count": 300}, "300 classes, and BaseSegDataset keeps .* 8 bits"),
    ],
)
def test_configs_that_do_not_go_with_the_data_are_named(check, tmp_path, options, message):
    found = check.mmseg(make_scenes(tmp_path / "data"), **options)
    if not message:
        assert found.status == 0
        assert any("reduce_zero_label takes 1 from each value" in line for line in found.warnings)
    else:
        assert found.status == 2
        assert any(re.search(message, line) for line in found.errors), found.errors


def test_every_file_is_checked_once_and_remembered_until_it_changes(check, tmp_path, monkeypatch):
    root = make_scenes(tmp_path / "data")
    assert check.mmseg(root).status == 0
    opened = []
    monkeypatch.setattr(
        "focalnet_backbone.data_check.labels.LabelReader.__call__", lambda self, path: opened.append(path)
    )
    first = check.mmseg(root)
    assert (first.status, opened) == (0, [])
    monkeypatch.undo()
    monkeypatch.setenv("FOCALNET_CACHE", str(tmp_path / "cache"))
    save(LABEL, ONES * 9)(root)
    assert "002.png (value 9)" in check.mmseg(root).errors[0]


@pytest.mark.parametrize("reader", [PhotoReader, LabelReader])
@pytest.mark.parametrize(("error", "kept"), [(MemoryError(), False), (ValueError("no marker"), True)])
def test_a_lack_of_memory_is_told_of_a_file_and_not_kept(tmp_path, reader, error, kept):
    def load(path):
        raise error

    path = tmp_path / "photo.tif"
    Image.new("I;16", (4, 3)).save(path)
    facts = reader(load)(str(path))
    assert facts["error"] == "cannot be read"
    assert isinstance(facts, Passing) is not kept
