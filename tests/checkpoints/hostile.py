"""Files that would harm whoever loads them without care."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch


class Attack:
    """Pickles into a call that makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def zip_with_attack(path: Path, marker: Path, content: Any = None) -> None:
    torch.save({"state_dict": content or {"x": torch.zeros(2)}, "meta": Attack(marker)}, path)


def legacy_with_attack(path: Path, marker: Path, content: Any = None) -> None:
    content = {"state_dict": content or {"x": torch.zeros(2)}, "meta": Attack(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=False)


def bare_pickle(path: Path, marker: Path, content: Any = None) -> None:
    path.write_bytes(pickle.dumps({"model": Attack(marker), "__author__": "somebody"}, protocol=2))


def modern_pickle(path: Path, marker: Path, content: Any = None) -> None:
    path.write_bytes(pickle.dumps({"model": Attack(marker), "__author__": "somebody"}))


HOSTILE = {
    "zip": zip_with_attack,
    "legacy": legacy_with_attack,
    "pickle of protocol 2": bare_pickle,
    "pickle of today": modern_pickle,
}
"""What writes such a file, with a call in it that makes the folder `marker`."""
