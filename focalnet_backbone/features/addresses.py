"""Paths and addresses: files here, or anywhere that fsspec opens (`s3://`, `gs://`, `hf://`, `https://`).

A path without `://` is a local one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import IO, Any

from focalnet_backbone.system.command_line import one_line
from focalnet_backbone.system.files import UNFINISHED
from focalnet_backbone.system.inputs import check_file


class SourceError(OSError):
    """A shard or an address cannot be read; the message says which, and why."""


def is_address(path: str) -> bool:
    """Whether it is something for fsspec, not a path on this machine."""
    return "://" in path


@contextlib.contextmanager
def open_address(path: str) -> Iterator[IO[bytes]]:
    """A file at a path or an address, to read. Raises `OSError` for one that cannot be opened, or is a pipe."""
    if is_address(path):
        with reaching(path):
            system, place = filesystem(path)
            file = system.open(path if place is None else place, "rb")
    else:
        check_file(path)
        file = open(path, "rb")  # noqa: SIM115
    with file:
        yield file


@contextlib.contextmanager
def reaching(address: str) -> Iterator[None]:
    """Turns the errors of whichever library serves an address into `SourceError`, which names it."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:  # Of aiohttp, botocore, huggingface_hub, ...: each has its own.
        if isinstance(error, FileNotFoundError):
            # Web servers that don't answer are not found either, as fsspec has it.
            if not isinstance(error.__cause__, OSError) or isinstance(error.__cause__, FileNotFoundError):
                raise FileNotFoundError(f"there is nothing at {address}") from None
            error = error.__cause__
        raise SourceError(f"cannot reach {address}: {one_line(error) or type(error).__name__}") from error


def filesystem(path: str) -> tuple[Any, str]:
    """What serves an address, and the address's place there."""
    import fsspec

    return fsspec.core.url_to_fs(path)


def state(path: str) -> str:
    """What changes when a file does: size and time, or whatever its server tells."""
    if is_address(path):
        with reaching(path):
            system, place = filesystem(path)
            return system.ukey(place)
    try:
        status = os.stat(path)
    except OSError:  # Who reads it will say so.
        return "not there"
    return f"{status.st_size} bytes of {status.st_mtime_ns}"


def size(path: str) -> float:
    """Bytes of a file; infinite where its server does not tell."""
    if not is_address(path):
        return os.stat(path).st_size
    system, place = filesystem(path)
    size = system.info(place).get("size")
    return float("inf") if size is None else size


def members_of(folder: str) -> list[str]:
    """What lies directly in a folder."""
    if not is_address(folder):
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if not entry.name.startswith((UNFINISHED, "_"))]
    with reaching(folder):
        system, place = filesystem(folder)
        return [system.unstrip_protocol(name) for name in system.ls(place, detail=False)]
