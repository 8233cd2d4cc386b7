"""What is in an annotation file of COCO's format, told without judging: that is up to who uses it."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeAlias

from focalnet_backbone.annotations.mend import is_flat_polygon, is_polygon, lacks_area, read_already
from focalnet_backbone.system.facts import find_out
from focalnet_backbone.system.inputs import read_json
from focalnet_backbone.system.memory import without_collector

EXAMPLES = 3
OVER = 2.0
"""Pixels by which a box may reach over the edge of its photo: tools that draw boxes round outwards."""
FAR = 1e6
"""Pixels that a polygon's points may be away: pycocotools walks there step by step, and beyond 4e8 ends the process."""

FIELDS = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}
"""What each entry of the three lists must have to be trained on."""
_NUMBERS = frozenset({int, float})


@dataclass(frozen=True)
class Loading:
    """What a framework's own loader says of a file.

    Attributes:
        question: what is asked, with everything that the answer depends on besides the file.
        load: takes the path and returns what JSON can hold. What pycocotools reads within is not read again.
        bounds_do: whether it says the same if each polygon is its bounding box with as many points, which takes a
            third of the memory.
    """

    question: str
    load: Callable[[str], Any]
    bounds_do: bool = False


Facts: TypeAlias = dict[str, Any]
"""What `coco_facts` returns."""


def coco_facts(path: str, loading: Loading | Callable[[Facts], Loading] | None = None) -> Facts:
    """What is in a file that is there.

    Args:
        path: of the file.
        loading: what `loaded` is going to be asked of it; that is found out in the same reading. Where it depends on
            the facts, a function of them, for a loader to which bounds do.

    Returns a dict:

    - `broken`: why it is no dataset in COCO's format; then there is nothing else.
    - `images`: `[id, file_name, width, height]` of each.
    - `categories`: `[id, name, objects, crowds]` of each, in the file's order.
    - `empty`: images without an object, crowds apart.
    - `unlabelled`: whether there is no list of annotations at all.
    - `objects`: objects, crowds apart; `outlines`: how many of them are outlined by `polygon`, by `rle`, by what is
      neither (`other`), not (`none`).
    - `as_corners`, `as_fractions`: whether its boxes can only be meant as x1, y1, x2, y2, or as parts of the photo.
    - `odd`: by what is odd, how often it is, and examples.
    - `loaded`: by its question, what a framework's loader said in the same reading.
    """
    return find_out("annotation file, 3", [path], functools.partial(_read, loading=loading), title=path)[path]


def loaded(path: str, facts: dict[str, Any], loading: Loading) -> Any:
    """What a framework's loader says of a file whose facts are known."""
    if loading.question in facts["loaded"]:
        return facts["loaded"][loading.question]
    return find_out(loading.question, [path], functools.partial(_load, loading=loading), title=path)[path]


def _load(path: str, loading: Loading) -> Any:
    with without_collector():
        if not loading.bounds_do:
            return loading.load(path)
        with read_already(path, read_json(path, most=None, hook=_simplify)):
            return loading.load(path)


def _read(path: str, loading: Loading | Callable[[Facts], Loading] | None) -> Facts:
    with without_collector():
        return _read_facts(path, loading)


def _read_facts(path: str, loading: Loading | Callable[[Facts], Loading] | None) -> Facts:
    whole = isinstance(loading, Loading) and not loading.bounds_do
    try:
        content = read_json(path, most=None, hook=None if whole else _simplify)
    except OSError as error:
        return {"broken": f"cannot be read: {error.strerror}"}
    except ValueError as error:
        return {"broken": str(error).removeprefix(f"{path} ")}
    wrong = _wrong_form(content)
    if wrong:
        return {"broken": f"is not in COCO's detection format: {wrong}"}
    facts = _File(content).facts()
    if loading:
        loading = loading if isinstance(loading, Loading) else loading(facts)
        with read_already(path, content):
            facts["loaded"][loading.question] = loading.load(path)
    return facts


def _simplify(entry: dict) -> dict:
    """Let each polygon of an annotation be its bounding box with as many points: all that is asked of it here."""
    outline = entry.get("segmentation")
    if type(outline) is list:
        for i, part in enumerate(outline):
            if is_polygon(part) and _are_numbers(part):
                x, y = part[::2], part[1::2]
                left, top, right, bottom = min(x), min(y), max(x), max(y)
                corners = [left, top, right, top, right, bottom, left, bottom]
                outline[i] = (corners * (len(part) // 8 + 1))[: len(part)]
    return entry


def _wrong_form(content: Any) -> str | None:
    if isinstance(content, list):
        return "it is a list, such as detections are saved in"
    if not isinstance(content, dict):
        return f"it holds {type(content).__name__}, not an object"
    for key in FIELDS:
        if not isinstance(content.get(key), list) and (key in content or key != "annotations"):
            return f"it has no list of {key!r}"
        if key != "annotations" and not content[key]:
            return f"its list of {key!r} is empty"
    return None


class _File:
    """One pass over a file's content."""

    def __init__(self, content: dict) -> None:
        self.content = content
        self.odd: dict[str, list] = {}
        self.outlines: Counter[str] = Counter()
        self.objects: Counter[Hashable] = Counter()
        self.crowds: Counter[Hashable] = Counter()
        self.boxes = self.over = self.corners = self.fractions = 0
        self.busy: set[Hashable] = set()

    def facts(self) -> dict[str, Any]:
        images = self._entries("images")
        categories = self._entries("categories")
        self._look_at_images(images)
        self._look_at_categories(categories)
        self.images = {image["id"]: image for image in images}
        self.categories = {category["id"] for category in categories}
        annotations = self._entries("annotations")
        self._find_twins("annotations", [a["id"] for a in annotations])
        if 0 in (a["id"] for a in annotations):
            self.note("id_0", "annotation 0")
        for annotation in annotations:
            self._look_at(annotation)
        return {
            "images": [[i["id"], i["file_name"], i["width"], i["height"]] for i in images],
            "categories": [[c["id"], c["name"], self.objects[c["id"]], self.crowds[c["id"]]] for c in categories],
            "unlabelled": "annotations" not in self.content,
            "empty": sum(id not in self.busy for id in self.images),
            "objects": sum(self.objects.values()),
            "outlines": dict(self.outlines),
            "as_corners": self.boxes > 3 and self.corners == self.boxes and self.over > self.boxes / 4,
            "as_fractions": self.boxes > 0 and self.fractions == self.boxes,
            "odd": self.odd,
            "loaded": {},
        }

    def note(self, what: str, example: str) -> None:
        """Count something odd, and keep the first examples."""
        count, examples = self.odd.setdefault(what, [0, []])
        self.odd[what][0] = count + 1
        if count < EXAMPLES:
            examples.append(example)

    def _entries(self, key: str) -> list[dict]:
        """Entries of a list that can be looked at further."""
        whole = []
        fields = FIELDS[key]
        ids = [field for field in fields if field == "id" or field.endswith("_id")]
        for number, entry in enumerate(self.content.get(key) or []):
            lacking = [f for f in fields if f not in entry] if isinstance(entry, dict) else fields
            if lacking:
                self.note(f"{key} without {', '.join(map(repr, lacking))}", f"entry {number}")
            elif not all(_can_be_id(entry[f]) for f in ids):
                self.note(f"{key} whose id is no number", f"entry {number}")
            else:
                whole.append(entry)
        for kind in ids:
            if len({type(entry[kind]) is str for entry in whole}) > 1:
                self.note(f"{key} mixed ids", kind)
        return whole

    def _find_twins(self, what: str, values: list) -> None:
        if len(set(values)) < len(values):
            for value, count in Counter(values).items():
                if count > 1:
                    self.note(f"{what} twice", str(value))

    def _look_at_images(self, images: list[dict]) -> None:
        self._find_twins("images", [image["id"] for image in images])
        for image in images:
            if not isinstance(image["file_name"], str) or not image["file_name"]:
                self.note("file names", f"image {image['id']}")
                image["file_name"] = str(image["file_name"])
            if any(type(image[side]) is not int or image[side] < 1 for side in ("width", "height")):
                self.note("image sizes", image["file_name"])
                image["width"] = image["height"] = math.nan
        self._find_twins("file names", [image["file_name"] for image in images])

    def _look_at_categories(self, categories: list[dict]) -> None:
        self._find_twins("categories", [category["id"] for category in categories])
        for category in categories:
            if not isinstance(category["name"], str) or not category["name"].strip():
                self.note("category names", f"category {category['id']}")
                category["name"] = str(category["name"])
            elif category["name"] != category["name"].strip():
                self.note("blanks", repr(category["name"]))
        self._find_twins("category names", [category["name"] for category in categories])

    def _look_at(self, annotation: dict) -> None:
        image, category = self.images.get(annotation["image_id"]), annotation["category_id"]
        if image is None:
            self.note("unknown images", f"annotation {annotation['id']}: image_id {annotation['image_id']!r}")
        if category not in self.categories:
            self.note("unknown categories", f"annotation {annotation['id']}: category_id {category!r}")
        if image is None or category not in self.categories:
            return
        odd = _look_at_fields(annotation)
        kind, polygons, wrong = _look_at_outline(annotation.get("segmentation"), image)
        odd += self._look_at_box(annotation["bbox"], image, polygons)
        odd += wrong
        if annotation.get("iscrowd", 0):
            self.crowds[category] += 1
            if kind == "polygon":
                odd.append("crowds by polygon")
        else:
            self.objects[category] += 1
            self.outlines[kind] += 1
            self.busy.add(image["id"])
            if kind == "none":
                odd.append("no outline")
        for what in odd:
            self.note(what, f"annotation {annotation['id']} of {image['file_name']}")

    def _look_at_box(self, box: Any, image: dict, polygons: list[list[float]]) -> list[str]:
        """What is odd about a box, by itself and beside the polygons of its outline."""
        if not (isinstance(box, list) and len(box) == 4 and _are_numbers(box)):
            return ["boxes"]
        x, y, w, h = box
        width, height = image["width"], image["height"]
        self.boxes += 1
        self.fractions += max(box) <= 1 and min(box) >= 0 and max(w, h) > 0
        self.corners += x < w <= width + OVER and y < h <= height + OVER
        odd = []
        if w < 0 or h < 0:
            odd.append("negative boxes")
        elif w == 0 or h == 0:
            odd.append("empty boxes")
        elif x >= width or y >= height or x + w <= 0 or y + h <= 0:
            self.over += 1
            odd.append("boxes outside")
        elif x < -OVER or y < -OVER or x + w > width + OVER or y + h > height + OVER:
            self.over += 1
            odd.append("boxes over")
        elif w < 1 or h < 1:
            odd.append("small boxes")
        if polygons and w > 0 and h > 0 and _differs(box, polygons):
            odd.append("boxes beside outlines")
        return odd


def _can_be_id(value: Any) -> bool:
    return type(value) is int or (isinstance(value, Hashable) and value is not None)


def _look_at_fields(annotation: dict) -> list[str]:
    """What is odd about what an annotation has beside its box and outline."""
    odd = []
    if "iscrowd" not in annotation:
        odd.append("no iscrowd")
    elif annotation["iscrowd"] not in (0, 1):
        odd.append("iscrowd")
    if annotation.get("ignore"):
        odd.append("ignore")
    if lacks_area(annotation):
        odd.append("area" if "area" in annotation else "no area")
    points = annotation.get("keypoints")
    if points is not None and not (isinstance(points, list) and len(points) % 3 == 0 and _are_numbers(points)):
        odd.append("keypoints")
    return odd


def _look_at_outline(outline: Any, image: dict) -> tuple[str, list[list[float]], list[str]]:
    """Whether it is "polygon", "rle", "none", or "other"; its polygons; and what is odd about it."""
    if isinstance(outline, dict):
        wrong = _wrong_rle(outline, image)
        return "rle", [], [wrong] if wrong else []
    if outline in (None, [], ""):
        return "none", [], []
    if not isinstance(outline, list):
        return "other", [], ["outlines"]
    odd = []
    if is_flat_polygon(outline):
        odd.append("flat polygons")
        outline = [outline]
    for part in outline:
        if not isinstance(part, list) or not _are_numbers(part):
            return "other", [], [*odd, "outlines"]
    polygons = list(filter(is_polygon, outline))
    if len(polygons) < len(outline):
        odd.append("parts of polygons" if polygons else "polygons")
    if any(max(part) > FAR or min(part) < -FAR for part in polygons):
        odd.append("far polygons")
    return "polygon", polygons, odd


def _are_numbers(values: list) -> bool:
    if not _NUMBERS.issuperset(map(type, values)):
        return False
    try:
        # Finite only if all are, and told sooner; that of large numbers need not be.
        return math.isfinite(sum(values)) or all(map(math.isfinite, values))
    except OverflowError:  # Of an integer that no float can hold.
        return False


def _differs(box: list[float], polygons: list[list[float]]) -> bool:
    """Whether a box and that of an outline share less than half of their area together."""
    x, y, w, h = box
    across, down = polygons[0][::2], polygons[0][1::2]
    for polygon in polygons[1:]:
        across += polygon[::2]
        down += polygon[1::2]
    left, right, top, bottom = min(across), max(across), min(down), max(down)
    area = (right - left) * (bottom - top)
    shared = max(0, min(right, x + w) - max(left, x)) * max(0, min(bottom, y + h) - max(top, y))
    return area > 4 and shared < (w * h + area - shared) / 2


def _wrong_rle(outline: dict, image: dict) -> str | None:
    size, counts = outline.get("size"), outline.get("counts")
    if not isinstance(counts, list | str) or not isinstance(size, list) or len(size) != 2:
        return "outlines"
    if size != [image["height"], image["width"]] and image["width"] == image["width"]:
        return "sizes of run-length outlines"
    try:
        lengths = counts if isinstance(counts, list) else _run_lengths(counts)
        fits = sum(lengths) == size[0] * size[1] and min(lengths, default=0) >= 0
    except (IndexError, TypeError):
        fits = False
    return None if fits else "run lengths"


def _run_lengths(text: str) -> list[int]:
    """Run lengths from COCO's text: numbers of 5 bits a character, lowest first, from the third on as differences.

    pycocotools decodes whatever it is given, and does not tell where the text ends too early or goes on too long.
    """
    lengths: list[int] = []
    place = 0
    while place < len(text):
        number, shift, more = 0, 0, True
        while more:
            bits = ord(text[place]) - 48
            number |= (bits & 31) << shift
            more, shift, place = bool(bits & 32), shift + 5, place + 1
        if bits & 16:
            number -= 1 << shift
        lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
    return lengths
