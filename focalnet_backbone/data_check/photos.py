"""Photos of a dataset: whether each can be read, and the size in which the framework's loader gives it."""

from __future__ import annotations

import math
import os
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from focalnet_backbone.data_check.findings import Findings
from focalnet_backbone.features.images import check_photo, find_images, is_hidden, load_image, open_image
from focalnet_backbone.system.command_line import is_out_of_memory
from focalnet_backbone.system.facts import Passing, find_out

READ_BY_ALL = frozenset({"BMP", "JPEG", "MPO", "PNG", "PPM", "WEBP"})
"""Formats in Pillow's spelling that every framework's loader reads as Pillow does."""
GIGANTIC = 89_478_485
"""Pixels from which Pillow warns of an image, as it may be an attack on memory."""
READ_BY_NONE = frozenset({".avif", ".cr2", ".dng", ".heic", ".heif", ".jp2", ".jxl", ".nef"})
"""Endings of photos, as telephones and cameras write them, that no dataset looks for."""
EXIF_TURNS = range(2, 9)
MISSING = "is not there"


@dataclass(frozen=True)
class PhotoReader:
    """Looks at one photo.

    Args:
        load: the framework's loader: from a path to pixels `(H, W, C)`; raises, or gives None, if it cannot.
    """

    load: Callable[[str], np.ndarray | None]

    def __call__(self, path: str) -> dict[str, Any]:
        """`size` (width, height) as loaded, `turned` by EXIF or not, or why it cannot be read: `error`."""
        if not os.path.isfile(path):
            return {"error": "is no file"}
        if not os.path.getsize(path):
            return {"error": "is empty"}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Of gigantic images, which are told in the check's own line.
                return self._look(path)
        except Exception as error:  # On damaged files, readers pass on whatever they meet.
            return unreadable(error)

    def _look(self, path: str) -> dict[str, Any]:
        check_photo(path)
        try:
            with open_image(path) as image:
                size, mode, kind = list(image.size), image.mode, image.format
                turned = image.getexif().get(ExifTags.Base.Orientation) in EXIF_TURNS
                # JPEG is read to its end, but with fewer pixels.
                image.draft("L", (size[0] // 8 or 1, size[1] // 8 or 1))
                image.load()
        except Image.UnidentifiedImageError:
            return {"size": self._load(path)}
        except OSError as error:
            if "truncated" in str(error) or "broken" in str(error):
                raise
            return {"size": self._load(path)}
        except Image.DecompressionBombError:
            return {"size": self._load(path)}
        deep = mode.startswith(("I", "F"))
        if deep or turned or kind not in READ_BY_ALL:
            size = self._load(path)
        if deep and self._turns_white(path):
            return {
                "size": size,
                "error": f"has more than 8 bits a pixel (mode {mode}), of which the loader makes white",
            }
        return {"size": size, "turned": turned}

    def _load(self, path: str) -> list[int]:
        pixels = self.load(path)
        if pixels is None:
            raise ValueError("the loader gives no image")
        return [pixels.shape[1], pixels.shape[0]]

    def _turns_white(self, path: str) -> bool:
        return (
            float((np.asarray(self.load(path)) >= 255).mean()) > 0.9 > float((load_image(path) == 255).float().mean())
        )


def look_at_photos(paths: Sequence[str], load: Callable[[str], Any], loader: str) -> dict[str, dict[str, Any]]:
    """Facts of each photo, as `PhotoReader` tells them; with the error `MISSING` for one that is not there.

    Args:
        paths: files.
        load: the framework's loader.
        loader: all that its result depends on, such as its name and version.
    """
    found = find_out(f"photo, 1: {loader}", paths, PhotoReader(load), title="photos")
    return {path: facts or {"error": MISSING} for path, facts in found.items()}


def judge_photos(photos: dict[str, dict[str, Any]], place: str, findings: Findings) -> None:
    """Add what is wrong with photos by themselves.

    Args:
        photos: facts by path.
        place: the file or folder that names them.
        findings: to add to.
    """
    missing = [path for path, facts in photos.items() if facts.get("error") == MISSING]
    judge_errors(photos, "photo", place, findings, {MISSING: _other_spelling(missing)})
    gigantic = [path for path, facts in photos.items() if "size" in facts and math.prod(facts["size"]) > GIGANTIC]
    cure = "they need much memory and time: cut them into tiles"
    findings.count(place, "photo", "of more than 89 million pixels", gigantic, cure, error=False)


def judge_errors(
    files: dict[str, dict[str, Any]], noun: str, place: str, findings: Findings, cures: dict[str, str]
) -> None:
    """Add files that cannot be read, by the `error` among the facts of each; `cures` says what else to do about one."""
    by_error: dict[str, list[str]] = {}
    for path, facts in files.items():
        if "error" in facts:
            why = f" ({facts['reason']})" if "reason" in facts else ""
            by_error.setdefault(facts["error"], []).append(f"{path}{why}")
    for error, names in by_error.items():
        verb, _, rest = error.partition(" ")
        many = f"{ {'is': 'are', 'has': 'have'}.get(verb, verb) } {rest}"
        cure = cures.get(error, "replace it, or leave it out")
        findings.count(place, noun, error if len(names) == 1 else many, names, cure)


def unreadable(error: Exception) -> dict[str, str]:
    """The facts of a file that could not be read: why, in few words and without the addresses of objects."""
    reason = re.sub(r" ?'?<[^>]*>'?", "", " ".join(str(error).split())) or type(error).__name__
    facts = {"error": "cannot be read", "reason": reason}
    return Passing(facts) if is_out_of_memory(error) else facts


def shown_sizes(photos: Iterable[dict[str, Any]]) -> str:
    """Sizes of photos for the table, such as `"640x480"` or `"320x240 to 1024x768"`, by the number of pixels."""
    sizes = sorted({tuple(facts["size"]) for facts in photos if "size" in facts}, key=lambda s: (s[0] * s[1], s))
    if not sizes:
        return "-"
    first, last = (f"{width}x{height}" for width, height in (sizes[0], sizes[-1]))
    return first if len(sizes) == 1 else f"{first} to {last}"


def files_within(folder: str) -> list[str]:
    """Paths of the files in a folder and those within it, hidden ones apart, in order."""
    found: list[str] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        found += [os.path.join(place, name) for name in names if not is_hidden(name)]
    return sorted(found)


def tell_left_out(folder: str, findings: Findings) -> None:
    """Add what of a folder no framework is given: photos in hidden folders or of formats that datasets do not look for,
    and links to folders that are not there."""
    hidden, lost, foreign = [], [], []
    for place, folders, names in os.walk(folder):
        for name in filter(is_hidden, folders):
            hidden += map(str, find_images(os.path.join(place, name), lambda path, error: None))
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in names:
            ending = os.path.splitext(name)[1].lower()
            if ending in READ_BY_NONE and not is_hidden(name):
                foreign.append(os.path.join(place, name))
            elif not ending and os.path.islink(path := os.path.join(place, name)) and not os.path.exists(path):
                lost.append(path)
    findings.count(folder, "photo", "in a hidden folder", sorted(hidden), "it is left out", error=False)
    cure = "it is left out: convert it to JPEG or PNG"
    findings.count(folder, "photo", "of a format that is not read", sorted(foreign), cure, error=False)
    cure = "a folder would be read: put it there, or take the link away"
    findings.count(folder, "link", "that leads nowhere", sorted(lost), cure, error=False)


def _other_spelling(missing: list[str]) -> str:
    """What to do about missing photos: a file of nearly their name is named."""
    for path in missing[:3]:
        if os.path.islink(path):
            return f"{Path(path).name!r} is a link that leads nowhere"
        if "\\" in path and os.path.exists(path.replace("\\", "/")):
            return "names with \\ are of Windows alone: write / in their place"
        folder = Path(path).parent
        above = next((place for place in folder.parents if place.is_dir()), folder)
        if not folder.is_dir() and (above / Path(path).name).exists():
            return f"{above} has {Path(path).name!r} without {folder.relative_to(above)}/ before it: correct the names"
        if folder.is_dir():
            plain = _plain(Path(path).name)
            for name in os.listdir(folder):
                if _plain(name) == plain:
                    return f"the folder has {name!r}, spelt with other letters"
                if Path(name).stem == Path(path).stem:
                    return f"the folder has {name!r}: another ending"
    return "put it there, or correct the path"


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
