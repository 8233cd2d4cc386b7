"""Folders in mmengine, which its datasets list, as in the rest of this package."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator

from mmengine.fileio import LocalBackend

from focalnet_backbone.features.images import is_hidden


def leave_out_hidden() -> None:
    """Let mmengine leave out what is hidden (see `is_hidden`) as it lists folders.

    By itself it leaves out files whose names begin with a dot, but goes into such folders: mmsegmentation takes
    previews and a notebook's copies for photos, and mmpretrain the folders for classes.
    """
    original = LocalBackend.list_dir_or_file
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def list_dir_or_file(
        self: LocalBackend,
        dir_path: str,
        list_dir: bool = True,
        list_file: bool = True,
        suffix: str | tuple[str, ...] | None = None,
        recursive: bool = False,
    ) -> Iterator[str]:
        original(self, dir_path, list_dir, list_file, suffix)  # Which checks what it is given, and waits.
        return _list(dir_path, "", list_dir, list_file, suffix, recursive)

    LocalBackend.list_dir_or_file = list_dir_or_file


def _list(
    folder: str, within: str, list_dir: bool, list_file: bool, suffix: str | tuple[str, ...] | None, recursive: bool
) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = os.path.join(within, entry.name)
            if is_hidden(entry.name):
                continue
            if entry.is_file():
                if list_file and (suffix is None or name.endswith(suffix)):
                    yield name
            elif os.path.isdir(entry.path):
                if list_dir:
                    yield name
                if recursive:
                    yield from _list(entry.path, name, list_dir, list_file, suffix, recursive)
