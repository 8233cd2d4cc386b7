"""What a check found: what is there, as a table, and what is wrong with it."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from tabulate import tabulate

from focalnet_backbone.data_check.findings import Findings
from focalnet_backbone.system.command_line import printable

CLASSES_SHOWN = 100


@dataclass(frozen=True)
class Split:
    """What is in one dataset of a config.

    Attributes:
        name: "train", "val" or "test".
        source: its file or folder.
        photos: path of each.
        sizes: of the photos, as text.
        unit: what is counted by class: "objects" or "pixels".
        counts: how many each class has, by its name.
        empty: photos without an object, or a pixel of any class.
        crowds: crowd boxes, of a dataset of objects.
        ignored: pixels of no class, of a dataset of labels.
    """

    name: str
    source: str
    photos: Sequence[str]
    sizes: str
    unit: str
    counts: dict[str, int]
    empty: int
    crowds: int | None = None
    ignored: int | None = None


class _RealPaths:
    """`os.path.realpath`, which asks for each part of a path, with what it said of folders remembered."""

    def __init__(self) -> None:
        self.folder = functools.cache(os.path.realpath)

    def __call__(self, path: str) -> str:
        folder, name = os.path.split(path)
        return os.path.realpath(path) if os.path.islink(path) else os.path.join(self.folder(folder), name)


@dataclass
class Report:
    """Datasets, and what is wrong with them."""

    splits: list[Split] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)

    def find_overlaps(self) -> None:
        """Add the photos that are trained on and evaluated on."""
        if all(split.name == "train" for split in self.splits):
            return
        real = _RealPaths()
        trained = {real(photo) for split in self.splits if split.name == "train" for photo in split.photos}
        for split in self.splits:
            if split.name != "train":
                both = [photo for photo in split.photos if real(photo) in trained]
                cure = "results on them say nothing of other photos"
                self.findings.count(split.source, "photo", "trained on too", both, cure, error=False)

    def table(self) -> str:
        """Two tables: of the datasets, and of their classes."""
        rows = [
            {
                "dataset": split.name,
                "from": split.source,
                "images": len(split.photos),
                "sizes": split.sizes,
                "empty images": split.empty,
                split.unit: sum(split.counts.values()),
                "crowd boxes": split.crowds,
                "ignored pixels": split.ignored,
            }
            for split in self.splits
        ]
        for column in ("crowd boxes", "ignored pixels"):
            if all(row[column] is None for row in rows):
                for row in rows:
                    del row[column]
        names = list(dict.fromkeys(name for split in self.splits for name in split.counts))
        headers = ["class", *(f"{split.name} {split.unit}" for split in self.splits)]
        classes = [
            [printable(name), *(split.counts.get(name) for split in self.splits)] for name in names[:CLASSES_SHOWN]
        ]
        more = f"\n... and {len(names) - CLASSES_SHOWN} more classes" if len(names) > CLASSES_SHOWN else ""
        options = {"tablefmt": "simple", "intfmt": ",", "missingval": "-"}
        return f"{tabulate(rows, 'keys', **options)}\n\n{tabulate(classes, headers, **options)}{more}"
