"""Label images of semantic segmentation: the values that the framework's loader gives of each, and what they mean."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from focalnet_backbone.data_check.findings import Findings, counted
from focalnet_backbone.data_check.photos import MISSING, files_within, judge_errors, unreadable
from focalnet_backbone.features.images import check_photo, open_image
from focalnet_backbone.system.facts import find_out

DEEP = ("I", "F")
"""First letters of Pillow's modes of more than 8 bits."""


@dataclass(frozen=True)
class LabelReader:
    """Looks at one label.

    Args:
        load: the framework's loader: from a path to values `(H, W)`.
    """

    load: Callable[[str], np.ndarray]

    def __call__(self, path: str) -> dict[str, Any]:
        """`shape`, `mode` of the file, `counts` of pixels by value; `deepest` value of a file of more than 8 bits.

        Or `error`: why it cannot be read.
        """
        if not os.path.isfile(path):
            return {"error": "is no file"}
        if not os.path.getsize(path):
            return {"error": "is empty"}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self._look(path)
        except Exception as error:  # On damaged files, readers pass on whatever they meet.
            return unreadable(error)

    def _look(self, path: str) -> dict[str, Any]:
        check_photo(path)
        try:
            with open_image(path) as image:
                mode, kind = image.mode, image.format
                deepest = float(np.asarray(image).max()) if mode.startswith(DEEP) else None
        except Image.UnidentifiedImageError:
            mode = kind = deepest = None  # Of a format that only the framework's loader knows.
        values = np.asarray(self.load(path))
        facts = {"shape": list(values.shape), "mode": mode, "format": kind}
        if deepest is not None:
            facts["deepest"] = deepest
        if values.ndim == 2 and values.size:
            found, counts = _count(values)
            facts["counts"] = dict(zip(found.tolist(), counts.tolist(), strict=True))
        return facts


def _count(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if values.dtype != np.uint8:
        return np.unique(values, return_counts=True)
    counts = np.bincount(values.ravel(), minlength=256)
    found = counts.nonzero()[0]
    return found, counts[found]


def look_at_labels(paths: Sequence[str], load: Callable[[str], Any], loader: str) -> dict[str, dict[str, Any]]:
    """Facts of each label, as `LabelReader` tells them, with values as numbers; the error `MISSING` without it.

    Args:
        paths: files.
        load: the framework's loader.
        loader: all that its result depends on, such as its settings and version.
    """
    found = find_out(f"label, 1: {loader}", paths, LabelReader(load), title="labels")
    for facts in found.values():
        if facts and "counts" in facts:
            facts["counts"] = {int(value): count for value, count in facts["counts"].items()}
    return {path: facts or {"error": MISSING} for path, facts in found.items()}


@dataclass(frozen=True)
class Meaning:
    """What values of labels mean.

    Attributes:
        classes: name of each class, by value.
        ignored: the value of pixels of no class.
        shifted: whether the loader takes 1 from each value, and ignores 0 (`reduce_zero_label`).
    """

    classes: Sequence[str]
    ignored: int
    shifted: bool


def judge_labels(labels: dict[str, dict[str, Any]], meaning: Meaning, place: str, findings: Findings) -> Counter[int]:
    """Add what is wrong with labels by themselves. Returns the pixels of each value.

    Args:
        labels: facts by path.
        meaning: of their values.
        place: their folder.
        findings: to add to.
    """
    judge_errors(labels, "label", place, findings, {})
    flat = {path: facts for path, facts in labels.items() if "counts" in facts}
    coloured = [f"{p} ({facts['mode']})" for p, facts in labels.items() if len(facts.get("shape", "hw")) != 2]
    cure = "a label holds the number of the class at each pixel, in one channel: turn colours into numbers"
    findings.count(place, "label", "in colour", coloured, cure)
    deep = {p: int(f["deepest"]) for p, f in flat.items() if f.get("deepest", 0) > 255}
    wrapped = [f"{path} (value {value} would become {value % 256})" for path, value in deep.items()]
    cure = "the loader keeps 8 bits: use values up to 255"
    findings.count(place, "label", "of 16 bits with values over 255", wrapped, cure)
    pixels: Counter[int] = Counter()
    for path, facts in flat.items():
        if path not in deep:
            pixels.update(facts["counts"])
    _judge_values({p: f["counts"] for p, f in flat.items() if p not in deep}, meaning, place, findings)
    lossy = [path for path, facts in flat.items() if facts["format"] in ("JPEG", "MPO")]
    findings.count(place, "label", "in JPEG", lossy, "its compression changes values: save labels as PNG", error=False)
    return pixels


def _judge_values(counts: dict[str, dict[int, int]], meaning: Meaning, place: str, findings: Findings) -> None:
    number = len(meaning.classes)
    shift = " after reduce_zero_label" if meaning.shifted else ""
    foreign = {}
    for path, values in counts.items():
        stray = [value for value in values if value >= number and value != meaning.ignored]
        if stray:
            more = f" and {len(stray) - 1} more" if len(stray) > 1 else ""
            foreign[path] = f"{path} (value {min(stray)}{shift}{more})"
    cure = f"there are {counted(number, 'class')}, 0 to {number - 1}; pixels of none must be {meaning.ignored}"
    if number == 2 and all(255 in values or 254 in values for values in counts.values()):
        cure += ": a mask of 0 and 255 has to be one of 0 and 1"
    findings.count(place, "label", "with values that are no class", foreign.values(), cure)
    unlabelled = [path for path, values in counts.items() if set(values) == {meaning.ignored}]
    error = bool(counts) and len(unlabelled) == len(counts)
    cure = "nothing is learnt of them" + (": give pixels their class" if error else "")
    findings.count(place, "label", "without a pixel of any class", unlabelled, cure, error=error)


@dataclass
class Learnt:
    """The pixels that a training learns from, of all its datasets together: one of them may hold a single class."""

    found: dict[str, tuple[Meaning, dict[str, None], Counter[int]]] = field(default_factory=dict)

    def add(self, pixels: Counter[int], meaning: Meaning, place: str) -> None:
        """Add a dataset: the pixels of each value, what values mean, and the folder."""
        _, places, total = self.found.setdefault(repr(meaning), (meaning, {}, Counter()))
        places[place] = None
        total.update(pixels)

    def judge(self, findings: Findings) -> None:
        """Add what is wrong with the classes that there are."""
        for meaning, places, pixels in self.found.values():
            if pixels:
                _judge_classes(pixels, meaning, " and ".join(places), findings)


def _judge_classes(pixels: Counter[int], meaning: Meaning, place: str, findings: Findings) -> None:
    present = [value for value in range(len(meaning.classes)) if pixels[value]]
    absent = [name for value, name in enumerate(meaning.classes) if not pixels[value]]
    if len(present) == 1 and len(absent) and not any(v >= len(meaning.classes) for v in pixels if v != meaning.ignored):
        hint = f": {pixels[meaning.ignored]:,} pixels are {meaning.ignored}, which is ignored"
        findings.add(
            f"{place}: all labels have one class only, {meaning.classes[present[0]]!r}"
            f"{hint if pixels[meaning.ignored] else ''}; other classes need their own values, 0 to "
            f"{len(meaning.classes) - 1}{' after reduce_zero_label' if meaning.shifted else ''}"
        )
    elif absent and present:
        cure = "nothing is learnt of them"
        if meaning.shifted and absent == [meaning.classes[-1]]:
            cure = "reduce_zero_label takes 1 from each value and ignores 0: is the first class numbered 1?"
        findings.count(place, "class", "without a pixel", map(repr, absent), cure, error=False)


def judge_pairs(
    pairs: Sequence[tuple[str, str]],
    photos: dict[str, dict[str, Any]],
    labels: dict[str, dict[str, Any]],
    place: str,
    findings: Findings,
) -> None:
    """Add labels that do not cover their photo.

    Args:
        pairs: path of each photo and its label.
        photos, labels: facts by path.
        place: the folder of labels.
        findings: to add to.
    """
    unlike: dict[bool, list[str]] = {False: [], True: []}
    turned = []
    for photo, label in pairs:
        width, height = photos[photo].get("size", (None, None))
        shape = labels[label].get("shape", ())
        is_turned = photos[photo].get("turned", False)
        if width and len(shape) == 2 and shape != [height, width]:
            unlike[is_turned].append(f"{label} ({shape[1]}x{shape[0]}, its photo {width}x{height})")
        elif is_turned:
            turned.append(photo)
    cure = "a label has a value for each pixel of its photo: draw it at the photo's size"
    findings.count(place, "label", "of another size than its photo", unlike[False], cure)
    cure = "the loader turns the photo and not the label: write photos anew, upright and without EXIF"
    findings.count(place, "label", "of another size than its photo, which EXIF turns", unlike[True], cure)
    cure = "the loader turns the photo and not the label: are labels drawn on the upright photo?"
    findings.count(place, "label", "whose photo EXIF turns", turned, cure, error=False)


def unused_labels(labels: Collection[str], folder: str, suffixes: Sequence[str], findings: Findings) -> None:
    """Add labels in a folder that belong to no photo.

    Args:
        labels: paths that belong to photos.
        folder: folder of labels.
        suffixes: endings of labels.
        findings: to add to.
    """
    named = set(labels)
    unused = [path for path in files_within(folder) if path.endswith(tuple(suffixes)) and path not in named]
    if unused:  # Or named in another way.
        absolute = set(map(os.path.abspath, labels))
        unused = [path for path in unused if os.path.abspath(path) not in absolute]
    findings.count(folder, "label", "without a photo", unused, "is its photo missing, or of another name?", error=False)
