"""Writing files that are whole or not there."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # On Windows.
    fcntl = None

UNFINISHED = ".unfinished-"
"""What the name of everything begins with that is not whole yet. It is never an input."""

_UNLOCKED_FOR_LONG = 24 * 3600
"""Seconds after which something unfinished is taken for dead where the file system knows no locks."""

_swept: set[Path] = set()


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a path to write to, beside `path` and with its suffix; it takes the place of `path` when all went well.

    Whatever stops the writing, an older file at `path` stays as it was and nothing half-written is left. What a killed
    process left in the folder is removed.

    Raises:
        OSError: it cannot be written; the error has the reason and `path`, whichever library did the writing.
    """
    path = Path(path)
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(path.parent, once=True)
        unfinished, lock = _begin(path)
    try:
        with _naming(path, unfinished):
            yield unfinished
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
        os.close(lock)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Give a folder to fill, beside `path`, which becomes `path` when all went well; there must be nothing yet.

    Raises `OSError`, as `whole_file` does.
    """
    path = Path(path)
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(path.parent, once=True)
        unfinished = path.with_name(f"{UNFINISHED}{secrets.token_hex(8)}")
        unfinished.mkdir()
        lock = _lock(unfinished)
    try:
        with _naming(path, unfinished):
            yield unfinished
            unfinished.rename(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def remove_unfinished(folder: str | Path, *, once: bool = False) -> None:
    """Remove what processes that are dead left unfinished in a folder; what a living one writes is locked.

    Args:
        folder: it need not be there.
        once: do nothing if this process has looked there before.
    """
    folder = Path(folder).absolute()
    if once and folder in _swept:
        return
    _swept.add(folder)
    try:
        with os.scandir(folder) as entries:
            left = [folder / entry.name for entry in entries if entry.name.startswith(UNFINISHED)]
    except OSError:  # It is not there, or not to be looked into; who writes there will say so.
        return
    for path in left:
        with contextlib.suppress(OSError):
            lock = _lock(path)
            if lock is None:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
            os.close(lock)


def _begin(path: Path) -> tuple[Path, int]:
    """A new file to write to, locked for as long as this process lives, and the lock to close."""
    while True:
        # Not made of the file's own name, which may be as long as a name can be.
        unfinished = path.with_name(f"{UNFINISHED}{secrets.token_hex(8)}{path.suffix}")
        if len(os.fsencode(unfinished.name)) > 255:
            unfinished = unfinished.with_suffix("")
        file = os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        if fcntl:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file).st_nlink:  # Else another process removed it before it was locked.
            return unfinished, file
        os.close(file)


def _lock(path: Path) -> int | None:
    """Lock something unfinished; None if it belongs to a process that lives, or might."""
    file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        if fcntl is None:
            raise OSError(errno.ENOTSUP, "no locks")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    except OSError:
        if time.time() - os.fstat(file).st_mtime < _UNLOCKED_FOR_LONG:
            os.close(file)
            return None
    return file


@contextmanager
def _naming(path: Path, unfinished: Path | None = None) -> Iterator[None]:
    """Let an error of writing tell the reason and the file, which not all libraries do."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = getattr(error, "errno", None)
        is_elsewhere = isinstance(error, OSError) and error.filename is not None
        if is_elsewhere and not (unfinished and str(error.filename).startswith(str(unfinished))):
            if number == errno.ENAMETOOLONG or unfinished is None:
                raise OSError(number, error.strerror, str(path)) from error
            raise
        if number is None and unfinished:  # Pillow has numbers of its own, torch only says where it noticed.
            number = _why_not(unfinished)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _why_not(unfinished: Path) -> int | None:
    """The number of the error that writing on to a file gives; None if it goes well."""
    try:
        with unfinished.open("ab") as file:
            file.write(bytes(1 << 16))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno
    return None
