"""Where shards of features are put: a folder of this machine, or one at an address that fsspec serves.

Both have the same few calls. What is written appears whole: locally by a rename, at an address by an upload of a file
that is whole; and since a shard counts only once its manifest is there, an upload that was cut off counts for nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from focalnet_backbone.features.addresses import is_address, reaching
from focalnet_backbone.system.files import UNFINISHED, remove_unfinished, whole_file, whole_folder
from focalnet_backbone.system.outputs import check_writable


class Store:
    """A folder to write to and to read from, by names relative to it.

    Args:
        address: a path, or something with `://` in it.
    """

    def __init__(self, address: str | Path) -> None:
        self.address = str(address).rstrip("/")
        self.is_remote = is_address(self.address)

    def check(self, *folders: str) -> None:
        """Raise `OSError` if nothing can be written there. What dead processes left there, or in `folders`, goes."""
        if not self.is_remote:
            check_writable(Path(self.address, "a"))
            for folder in ("", *folders):
                remove_unfinished(Path(self.address, folder))
        else:
            with self._reach() as (system, place):
                system.makedirs(place, exist_ok=True)

    def names(self, folder: str = "") -> list[str]:
        """What lies whole in the folder, or in one below it; nothing if that is not there."""
        if not self.is_remote:
            path = Path(self.address, folder)
            names = [entry.name for entry in path.iterdir()] if path.is_dir() else []
            return sorted(name for name in names if not name.startswith(UNFINISHED))
        with self._reach(folder) as (system, place):
            system.invalidate_cache()
            found = system.ls(place, detail=False) if system.isdir(place) else []
            return sorted(name.rstrip("/").rpartition("/")[2] for name in found)

    def read(self, name: str) -> bytes | None:
        """A small file's content; None if there is none."""
        if not self.is_remote:
            path = Path(self.address, name)
            return path.read_bytes() if path.is_file() else None
        with self._reach(name) as (system, place):
            return system.cat_file(place) if system.isfile(place) else None

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, whole or not at all."""
        with self.whole(name, folder=False) as unfinished:
            unfinished.write_bytes(content)

    def size(self, name: str) -> int | None:
        """Bytes of a file; 0 for a folder, None for nothing."""
        if not self.is_remote:
            path = Path(self.address, name)
            return (0 if path.is_dir() else path.stat().st_size) if path.exists() else None
        with self._reach(name) as (system, place):
            if not system.exists(place):
                return None
            return 0 if system.isdir(place) else int(system.info(place)["size"])

    def remove(self, name: str) -> None:
        """Remove a file or folder, if it is there."""
        if self.is_remote:
            with self._reach(name) as (system, place):
                if system.exists(place):
                    system.rm(place, recursive=True)
            return
        import shutil

        path = Path(self.address, name)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    @contextmanager
    def whole(self, name: str, *, folder: bool) -> Iterator[Path]:
        """A local path to write a file or folder to, which becomes `name` when all went well; an old one goes."""
        if not self.is_remote:
            path = Path(self.address, name)
            if folder:
                self.remove(name)
            with whole_folder(path) if folder else whole_file(path) as unfinished:
                yield unfinished
            return
        with tempfile.TemporaryDirectory(prefix="focalnet-") as local:
            path = Path(local, Path(name).name)
            if folder:
                path.mkdir()
            yield path
            if folder:
                self.remove(name)
            with self._reach(name) as (system, place):
                system.makedirs(place.rpartition("/")[0], exist_ok=True)
                system.put(f"{path}/" if folder else str(path), f"{place}/" if folder else place, recursive=folder)

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """A local path with what is stored under a name: itself, or a copy for as long as it is looked at."""
        if not self.is_remote:
            yield Path(self.address, name)
            return
        with tempfile.TemporaryDirectory(prefix="focalnet-") as folder:
            path = Path(folder, Path(name).name)
            with self._reach(name) as (system, place):
                system.get(place, str(path), recursive=system.isdir(place))
            yield path

    @contextmanager
    def _reach(self, name: str = "") -> Iterator[tuple[Any, str]]:
        import fsspec

        with reaching(self.address):
            system, place = fsspec.core.url_to_fs(self.address)
            yield system, f"{place.rstrip('/')}/{name}".rstrip("/")
