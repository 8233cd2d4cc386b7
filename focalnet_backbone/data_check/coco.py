"""What the facts of a COCO file mean for a training: which stop it, which are told, and what to do about each."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from focalnet_backbone.data_check.findings import Findings, counted
from focalnet_backbone.system.spelling import closest

Framework = Literal["detectron2", "mmdetection"]


@dataclass(frozen=True)
class Use:
    """What a dataset is used for.

    Attributes:
        framework: which reads the file.
        masks: whether outlines are used: learnt or evaluated.
        keypoints: whether keypoints are used.
        train: whether it is trained on; else the model is evaluated on it.
        measured: whether an evaluation needs its objects.
    """

    framework: Framework
    masks: bool
    keypoints: bool = False
    train: bool = True
    measured: bool = True


@dataclass(frozen=True)
class Rule:
    """How one kind of oddity is told, whether it stops a training, and the only use that it concerns."""

    noun: str
    what: str
    cure: str
    error: bool = True
    only: Literal["", "masks", "keypoints", "detectron2", "mmdetection"] = ""

    def concerns(self, use: Use) -> bool:
        """Whether it makes a difference to this use."""
        return not self.only or self.only == use.framework or getattr(use, self.only, False)


_NUMBER_ANEW = "give each a number of its own"
_LEFT_OUT = "they are left out"
_FOUR = "a box is [x, y, width, height] in pixels"

RULES = {
    "images twice": Rule("id", "of several images", _NUMBER_ANEW),
    "annotations twice": Rule("id", "of several annotations", _NUMBER_ANEW),
    "categories twice": Rule("id", "of several categories", _NUMBER_ANEW),
    "category names twice": Rule("name", "of several categories", "give each its name, or make them one"),
    "file names twice": Rule("photo", "listed more than once", "it counts as often: list it once", error=False),
    "file names": Rule("image", "whose file_name is no name", "name the file"),
    "image sizes": Rule("image", "whose width or height is no whole number above 0", "give the photo's size in pixels"),
    "category names": Rule("category", "whose name is no text", "name it"),
    "blanks": Rule("category name", "with blanks around it", "take them away, here and in the config", error=False),
    "id_0": Rule(
        "annotation", "with id 0", "ids are taken 1 higher, as COCO's evaluation takes 0 for none", error=False
    ),
    "unknown images": Rule("annotation", "of an image that is not listed", "list the image, or take them out"),
    "unknown categories": Rule("annotation", "of a category that is not listed", "list it, or correct category_id"),
    "no iscrowd": Rule("annotation", "without 'iscrowd'", "they are taken as 0, single objects", error=False),
    "iscrowd": Rule("annotation", "whose iscrowd is neither 0 nor 1", "use 1 for a group drawn as one, else 0"),
    "ignore": Rule("annotation", "with 'ignore'", "detectron2 refuses them: take them out", only="detectron2"),
    "no area": Rule("annotation", "without 'area'", "it is computed from outline or box", error=False),
    "area": Rule("annotation", "whose area is no number above 0", "it is computed from outline or box", error=False),
    "boxes": Rule("annotation", "whose bbox is not four numbers", _FOUR),
    "negative boxes": Rule("box", "of negative width or height", _FOUR),
    "empty boxes": Rule("box", "of width or height 0", _LEFT_OUT, error=False),
    "small boxes": Rule("box", "of less than one pixel", _LEFT_OUT, error=False, only="mmdetection"),
    "boxes outside": Rule("box", "outside of the photo", f"correct them, or take them out; {_FOUR}"),
    "boxes over": Rule("box", "over the edge of the photo", f"they are cut there; {_FOUR}", error=False),
    "boxes beside outlines": Rule("box", "away from its outline", f"which of them is right? {_FOUR}", error=False),
    "no outline": Rule(
        "object",
        "without a 'segmentation', and the model learns masks",
        "outline them, or train a model of boxes",
        only="masks",
    ),
    "flat polygons": Rule(
        "segmentation", "as one flat list", "it is taken as one polygon; COCO has a list of such lists", error=False
    ),
    "polygons": Rule(
        "segmentation",
        "without a polygon of three points (x, y, x, y, x, y)",
        "draw it, or take the object out",
        only="masks",
    ),
    "parts of polygons": Rule(
        "segmentation", "with parts of less than three points or of odd length", "those parts are left out", error=False
    ),
    "far polygons": Rule(
        "segmentation",
        "with a point over a million pixels away",
        "correct it, or take the object out",
        only="masks",
    ),
    "outlines": Rule(
        "segmentation", "that is neither polygons nor run lengths", "see cocodataset.org/#format-data", only="masks"
    ),
    "sizes of run-length outlines": Rule(
        "segmentation", "by run lengths of another size than its image", "size is [height, width] of it", only="masks"
    ),
    "run lengths": Rule(
        "segmentation", "whose run lengths do not fill its size", "encode it anew, by pycocotools.mask", only="masks"
    ),
    "crowds by polygon": Rule("crowd", "outlined by polygons", "is iscrowd meant? Crowds are not learnt", error=False),
    "keypoints": Rule(
        "annotation", "whose keypoints are no threes of numbers", "use x, y, visibility", only="keypoints"
    ),
}
"""By the names that `coco_facts` gives them. Of others (lists whose entries lack something) the name says it all."""


BROKEN = ("images ", "annotations ", "categories ", "category names", "file names", "image sizes")
"""How the names begin of what leaves a file in no state to look at the rest of it; and only then these are told."""


def judge_coco(facts: dict[str, Any], path: str, use: Use, findings: Findings, classes: Collection[str] = ()) -> bool:
    """Add what is wrong in a COCO file for a use of it. Returns whether the rest of it can be looked at.

    Args:
        facts: of the file, see `coco_facts`.
        path: of the file.
        use: what it is for.
        findings: to add to.
        classes: the categories that are wanted; all by default.
    """
    if "broken" in facts:
        findings.add(f"{path} {facts['broken']}")
        return False
    broken = {name: odd for name, odd in facts["odd"].items() if name.startswith(BROKEN) and name != "file names twice"}
    for name, (count, examples) in (broken or facts["odd"]).items():
        rule = RULES.get(name)
        if rule is None:
            kind, _, what = name.partition(" ")
            noun = {"images": "image", "annotations": "annotation", "categories": "category"}[kind]
            rule = Rule(noun, what, "COCO's format needs it" if what.startswith("without") else "use whole numbers")
        if rule.concerns(use):
            findings.count(path, rule.noun, rule.what, examples, rule.cure, total=count, error=rule.error)
    if broken:
        return False
    if facts["as_fractions"]:
        findings.add(f"{path}: boxes are fractions of the photo (all numbers up to 1); {_FOUR}")
    elif facts["as_corners"]:
        findings.add(f"{path}: boxes look like [x1, y1, x2, y2]: many reach over the edge of the photo else; {_FOUR}")
    _judge_objects(facts, path, use, findings, classes)
    return True


def _judge_objects(facts: dict[str, Any], path: str, use: Use, findings: Findings, classes: Collection[str]) -> None:
    purpose = "to learn from" if use.train else "to measure by"
    crowds = sum(crowds for *_, crowds in facts["categories"])
    if not facts["objects"]:
        why = "it has no list of 'annotations'" if facts["unlabelled"] else "no annotation is one of an image in it"
        if crowds:
            why = f"all {counted(crowds, 'annotation')} are crowds (iscrowd 1), which are not learnt"
        findings.add(f"{path}: no object {purpose}: {why}", error=use.measured)
        return
    wanted = [(name, objects) for _, name, objects, _ in facts["categories"] if not classes or name in classes]
    absent = [repr(name) for name, objects in wanted if not objects]
    findings.count(path, "category", "without an object", absent, f"there is nothing {purpose}", error=False)
    if crowds > facts["objects"]:
        line = f"{path}: {counted(crowds, 'crowd')} (iscrowd 1) and {counted(facts['objects'], 'object')}"
        findings.add(f"{line}; crowds are not learnt: is iscrowd meant?", error=False)


def judge_order(facts: dict[str, Any], path: str, classes: Sequence[str], findings: Findings) -> None:
    """Add where a config's classes are not those that mmdetection gives to the objects of a file.

    It takes, in the file's order, the categories whose names are among the classes, and numbers them in that order; so
    a class that the file lacks moves those behind it, and another order swaps them.

    Args:
        facts: of the file, see `coco_facts`.
        path: of the file.
        classes: `metainfo.classes` of the dataset.
        findings: to add to.
    """
    names = [name for _, name, *_ in facts["categories"]]
    twice = sorted({name for name in classes if list(classes).count(name) > 1})
    findings.count(path, "class", "more than once in metainfo.classes", map(repr, twice), "name each once")
    missing = [name for name in classes if name not in names]
    others = [name for name in names if name not in classes]
    if len(missing) == len(classes):
        written = ", ".join(map(repr, names[:8])) + ("," if len(names) == 1 else ", ..." if len(names) > 8 else "")
        findings.add(
            f"{path}: none of the {len(classes)} classes of the config is among its categories; "
            f"set metainfo=dict(classes=({written})) of the dataset"
        )
    elif missing and (others or names != list(classes[: len(names)])):
        hints = closest(missing[0], names)
        cure = f"mmdetection leaves their objects out and moves the other classes.{hints}"
        findings.count(path, "class", "of metainfo.classes not among its categories", map(repr, missing), cure)
    elif missing:
        cure = "there is nothing to learn for them"
        findings.count(
            path, "class", "of metainfo.classes not among its categories", map(repr, missing), cure, error=False
        )
    elif [name for name in names if name in classes] != list(classes):
        order = ", ".join(repr(name) for name in names if name in classes)
        findings.add(
            f"{path}: its categories are in another order than metainfo.classes, and mmdetection numbers objects "
            f"by the file's: write classes=({order}) in the config, in the order of the file"
        )
    left_out = {name: objects for _, name, objects, _ in facts["categories"] if name in others and objects}
    if left_out and not missing:
        cure = f"their {counted(sum(left_out.values()), 'object')} are left out"
        findings.count(path, "category", "not among the config's classes", map(repr, left_out), cure, error=False)


def judge_sizes(
    facts: dict[str, Any], photos: dict[str, dict[str, Any]], folder: str, path: str, findings: Findings
) -> None:
    """Add photos whose size is not what a COCO file says.

    Args:
        facts: of the file.
        photos: facts of photos by path.
        folder: that the file's names start from.
        path: of the file.
        findings: to add to.
    """
    unlike: dict[bool, list[str]] = {False: [], True: []}
    for _, name, width, height in facts["images"]:
        photo = photos.get(os.path.join(folder, name), {})
        if photo.get("size", [width, height]) != [width, height]:
            sizes = f"{photo['size'][0]}x{photo['size'][1]}, in the file {width}x{height}"
            unlike[photo.get("turned", False)].append(f"{name} ({sizes})")
    cure = "annotations are made for one size: correct width and height, or use the photos they were drawn on"
    findings.count(path, "photo", "of another size than the file says", unlike[False], cure)
    cure = "EXIF turns it when it is loaded: write photos anew, upright and without EXIF, or turn the annotations"
    findings.count(path, "photo", "of another size than the file says", unlike[True], cure)
