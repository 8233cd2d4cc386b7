"""A user's own photos and labels, as command lines name them; each host puts them in the place of its config's data."""

from __future__ import annotations

import argparse
import bisect
import colorsys
import itertools
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from focalnet_backbone.features.images import find_images, is_hidden
from focalnet_backbone.system.inputs import read_text

UNLABELLED = 255
"""The value of pixels of no class, in every host."""

ARGUMENTS = (
    "train_images",
    "train_labels",
    "train_json",
    "val_images",
    "val_labels",
    "val_json",
    "label_ending",
    "classes",
    "ignore",
    "size",
)


@dataclass(frozen=True)
class Split:
    """Photos with their labels: images, a file, or else the folders that the photos lie in.

    Attributes:
        images: folder of the photos; without labels and annotations, of a folder a class.
        labels: folder of label images of the photos' names, each pixel's value telling its class; or None.
        annotations: a file in COCO's detection format that names the photos; or None.
    """

    images: Path
    labels: Path | None = None
    annotations: Path | None = None


@dataclass(frozen=True)
class OwnData:
    """A dataset of the user's.

    Attributes:
        train: what to train on; None leaves that to the config.
        val: what to evaluate on; None for nothing.
        classes: names of the classes; for COCO files, None takes those of the file.
        ignore: values of label images that mean no class.
        size: width and height in pixels that photos are brought to; None for the config's.
        label_ending: what the names of label images end in, where other images lie among them; None if none do.
    """

    train: Split | None
    val: Split | None
    classes: tuple[str, ...] | None = None
    ignore: tuple[int, ...] = ()
    size: tuple[int, int] | None = None
    label_ending: str | None = None

    @property
    def is_masks(self) -> bool:
        """Whether its labels are images."""
        return self.kind == "masks"

    @property
    def kind(self) -> str:
        """What its labels are: "masks" (images), "objects" (COCO files), or "folders" (a folder a class)."""
        return _kind(self.train or self.val)

    @property
    def label_values(self) -> list[int]:
        """The value of each class in label images: 0, 1, 2, ... without those to ignore."""
        values = (value for value in range(UNLABELLED) if value not in self.ignore)
        return [value for value, _ in zip(values, self.classes or (), strict=False)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `read_arguments` reads."""
    group = parser.add_argument_group(
        "data of your own, in place of the config's",
        "a folder of photos with a folder of label images of the same names, or with a file in COCO's format; alone, "
        "for classifiers, a folder that has a folder of photos for each class",
    )
    for split, use in (("train", "train on"), ("val", "evaluate on")):
        group.add_argument(f"--{split}-images", type=Path, metavar="DIR", help=f"photos to {use}")
        group.add_argument(f"--{split}-labels", type=Path, metavar="DIR", help="their labels: a value for each pixel")
        group.add_argument(f"--{split}-json", type=Path, metavar="FILE", help="their objects in COCO's format")
    group.add_argument(
        "--label-ending",
        metavar="END",
        help="what the labels' names end in, where a photo has several images there, such as _labelTrainIds.png",
    )
    group.add_argument(
        "--classes",
        type=Path,
        metavar="FILE",
        help="names of the classes, one a line: of the values 0, 1, 2, ... of labels, without those to ignore; with "
        "COCO files, of the classes to take (all by default)",
    )
    group.add_argument(
        "--ignore",
        type=int,
        nargs="+",
        default=[],
        metavar="VALUE",
        help="values of labels that are no class, beside 255",
    )
    group.add_argument(
        "--size", type=read_size, metavar="WxH", help="bring photos to about this width and height, such as 512x384"
    )


def read_size(text: str) -> tuple[int, int]:
    """A `type` of argparse's: width and height from `"512x384"`, or both from `"512"`."""
    match = re.fullmatch(r"([1-9]\d*)(?:[xX]([1-9]\d*))?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"must be width and height, such as 512x384, got {text!r}")
    return int(match[1]), int(match[2] or match[1])


def read_arguments(args: argparse.Namespace) -> OwnData | None:
    """The dataset that the arguments name, or None if they name none.

    Raises:
        FileNotFoundError: a folder or a file is not there.
        ValueError: arguments do not go together, or the names of the classes are wrong.
    """
    given = {name: getattr(args, name) for name in ARGUMENTS}
    train, val = (_read_split(name, given) for name in ("train", "val"))
    if train is None and val is None:
        alone = [f"--{name.replace('_', '-')}" for name in ("label_ending", "classes", "ignore", "size") if given[name]]
        if alone:
            raise ValueError(f"{' and '.join(alone)} describe data of your own; name it by --train-images")
        return None
    if train and val and _kind(train) != _kind(val):
        raise ValueError(
            "the data to train on and to evaluate on must both have label images, or both COCO files, or both be "
            "folders of classes"
        )
    classes = _read_classes(given["classes"]) if given["classes"] else None
    data = OwnData(train, val, classes, tuple(sorted(set(given["ignore"]))), given["size"], given["label_ending"])
    _check_labels(data)
    return data


def _read_split(name: str, given: dict) -> Split | None:
    images, labels, annotations = (given[f"{name}_{part}"] for part in ("images", "labels", "json"))
    if images is labels is annotations is None:
        return None
    if images is None:
        raise ValueError(f"--{name}-{'labels' if labels else 'json'} and --{name}-images go together")
    if labels is not None and annotations is not None:
        raise ValueError(f"--{name}-images goes with --{name}-labels or with --{name}-json, one of them")
    for folder, what in ((images, "photos"), (labels, "labels")):
        if folder is not None and not folder.is_dir():
            raise FileNotFoundError(f"no folder of {what} at {folder}")
    if annotations is not None and not annotations.is_file():
        raise FileNotFoundError(f"no annotations at {annotations}")
    if labels is annotations is None and len(list_classes(images)) < 2:
        raise ValueError(
            f"--{name}-images goes with --{name}-labels or with --{name}-json; alone it is for classifiers, with a "
            f"folder for each class, but {images} does not have two"
        )
    return Split(images, labels, annotations)


def _kind(split: Split) -> str:
    return "masks" if split.labels is not None else "folders" if split.annotations is None else "objects"


def list_classes(images: Path) -> list[str]:
    """Names of the classes of photos that lie in a folder for each: those of the folders, sorted."""
    return sorted(entry.name for entry in os.scandir(images) if entry.is_dir() and not is_hidden(entry.name))


def _read_classes(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise FileNotFoundError(f"no names of classes at {path}")
    lines = map(str.strip, read_text(path).removeprefix("\ufeff").splitlines())
    names = tuple(line for line in lines if line and not line.startswith("# "))
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if not names or repeated:
        raise ValueError(f"{path} names {f'{repeated[0]!r} more than once' if repeated else 'no class'}")
    unprintable = [name for name in names if not name.isprintable()]
    if unprintable:
        raise ValueError(f"{path} has a class with characters that cannot be printed: {unprintable[0]!r}")
    return names


def _check_labels(data: OwnData) -> None:
    if data.kind == "folders" and data.classes:
        raise ValueError("--classes is for label images and COCO files; of folders, the names are those of the classes")
    if not data.is_masks:
        if data.ignore:
            raise ValueError("--ignore is for values of label images; with COCO files, name the classes by --classes")
        if data.label_ending:
            raise ValueError("--label-ending is for label images, --train-labels and --val-labels")
        return
    wrong = [value for value in data.ignore if not 0 <= value <= UNLABELLED]
    if wrong:
        raise ValueError(f"--ignore takes values from 0 to {UNLABELLED}, got {wrong[0]}")
    if data.classes is None:
        raise ValueError("labels need --classes, a file with the name of each class in a line")
    if len(data.classes) < 2:
        raise ValueError(f"labels need two classes or more, got {data.classes[0]!r}; the background is one, too")
    if len(data.label_values) < len(data.classes):
        raise ValueError(f"{len(data.classes)} classes are more than labels of 8 bits can tell apart")


def palette(count: int) -> list[list[int]]:
    """RGB colours for classes, neighbours far apart in hue."""
    hues = ((i * 0.618034) % 1 for i in range(count))
    colors = (colorsys.hsv_to_rgb(hue, 0.75 - 0.3 * (i % 2), 0.95 - 0.3 * (i % 3 == 2)) for i, hue in enumerate(hues))
    return [[round(255 * part) for part in color] for color in colors]


def find_suffixes(images: Path, labels: Path, ending: str | None = None) -> tuple[list[str], str]:
    """What follows the common part of the names of a photo and its label: endings of photos, and that of labels.

    `1_photo.jpg` and `2_photo.png` with `1_mask.png` and `2_mask.png` have `["_photo.jpg", "_photo.png"]` and
    `"_mask.png"`. Photos are looked for in folders within `images`, too, and labels in those of the same names.

    Args:
        images: folder of the photos.
        labels: folder of the label images.
        ending: what the names of labels end in; other images in `labels` are none. None takes all.

    Raises:
        FileNotFoundError: there are no photos, or no label images.
        ValueError: names of photos and labels have no part in common, or a photo has several labels.
    """
    photos, found = _names(images, apart_from=labels), _names(labels)
    if ending and found:
        found = [name for name in found if name.endswith(ending)]
        if not found:
            raise FileNotFoundError(f"no image in {labels} has a name that ends in {ending}")
    if not photos or not found:
        raise FileNotFoundError(f"no {'label images' if photos else 'photos'} in {labels if photos else images}")
    if images.resolve() == labels.resolve():
        raise ValueError(f"{images} is the folder of photos and of labels; put them into two")
    tails = Counter(tail for photo in photos[:100] for tail in _tails(photo, found))
    if not tails:
        expected = labels / Path(photos[0]).with_suffix(".png")
        raise ValueError(f"{images / photos[0]} has no label in {labels} that begins with its name, such as {expected}")
    (best, count), *others = tails.most_common()
    rivals = [label for (_, label), times in others if times == count and count > 1]
    if rivals:
        several = " and ".join(sorted([best[1], *rivals]))
        raise ValueError(f"photos have several labels in {labels}, which end in {several}; choose by --label-ending")
    suffixes = sorted({best[0] + Path(photo).suffix for photo in photos})
    if images.resolve() in labels.resolve().parents and any(label.endswith(tuple(suffixes)) for label in found):
        raise ValueError(f"{labels} lies within {images}, where labels would be taken for photos; move it beside that")
    return suffixes, best[1]


def own_images(folder: Path) -> list[Path]:
    """Photos or label images in a folder and those within it, hidden ones apart, as some systems leave them; sorted."""
    return find_images(folder, hidden=False)


def _names(folder: Path, apart_from: Path | None = None) -> list[str]:
    begin = len(folder.parts)  # As `relative_to` does, which takes as long as all the rest.
    names = sorted("/".join(path.parts[begin:]) for path in own_images(folder))
    if apart_from is None or folder.resolve() not in apart_from.resolve().parents:
        return names
    within = f"{apart_from.resolve().relative_to(folder.resolve()).as_posix()}/"
    return [name for name in names if not name.startswith(within)]


def _tails(photo: str, labels: list[str]) -> list[tuple[str, str]]:
    """What is left of a photo's name, without its ending, and of each label's that shares the longest part with it."""
    stem = photo[: -len(Path(photo).suffix)]
    parts = [len(stem), *(match.start() for match in reversed(list(re.finditer(r"[-_.]", stem))))]
    for cut in parts:
        begin = bisect.bisect_left(labels, stem[:cut])
        same = itertools.takewhile(lambda label, cut=cut: label.startswith(stem[:cut]), labels[begin : begin + 1000])
        tails = [(stem[cut:], label[cut:]) for label in same if label[cut] in "-_."]
        if tails:
            return tails
    return []
