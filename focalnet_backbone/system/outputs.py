"""Which files a program may write: none of a user's, none twice, and only where it can."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from focalnet_backbone.system.files import remove_unfinished, whole_file
from focalnet_backbone.system.inputs import parse_json

MAKER = "focalnet-backbone"

_NOT_OURS = "exists already and was not written by this program; --force replaces it"
_COMMENTS = {".html": f"<!-- Written by {MAKER} -->", ".md": f"<!-- Written by {MAKER} -->"}
_COMMENTS |= {".svg": _COMMENTS[".html"], ".yaml": f"# Written by {MAKER}", ".py": f"# Written by {MAKER}"}
# JSON has no comments, and a list no place for a key; blanks at its end mean nothing to who reads it.
_COMMENTS[".json"] = " " * len(MAKER)
_PNG_START = struct.calcsize(">8sI4sIIBBBBBI")
"""Bytes of the signature and the header, which come first in every PNG."""


@contextmanager
def result_file(path: str | Path) -> Iterator[Path]:
    """`whole_file`, for a program's result: the file gets a mark by which `is_own` knows it, where its format has room.

    These are PNG, JSON, HTML, SVG, Markdown, YAML and Python. Safetensors are marked by who writes their metadata.
    """
    with whole_file(path) as unfinished:
        yield unfinished
        if unfinished.suffix == ".png":
            content = unfinished.read_bytes()
            unfinished.write_bytes(content[:_PNG_START] + _png_mark() + content[_PNG_START:])
        elif unfinished.suffix in _COMMENTS:
            with unfinished.open("ab") as file:
                file.write(_text_mark(unfinished.suffix))


def is_own(path: str | Path) -> bool:
    """Whether a file is one that a program of this package wrote and nobody has saved anew since."""
    path = Path(path)
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        with path.open("rb") as file:
            if path.suffix == ".png":
                return file.read(_PNG_START + len(_png_mark()))[_PNG_START:] == _png_mark()
            if path.suffix == ".safetensors":
                return _made_by(file.read(8), file.read(1 << 20))
            if path.suffix in _COMMENTS:
                mark = _text_mark(path.suffix)
                file.seek(max(0, file.seek(0, os.SEEK_END) - len(mark)))
                return file.read() == mark
    except OSError:
        pass
    return False


def claim(
    outputs: Iterable[tuple[str | Path, object]], inputs: Iterable[str | Path] = (), *, force: bool = False
) -> None:
    """Check that files may and can be written, before the work for them begins. Nothing is written.

    What killed programs left unfinished in the outputs' folders is removed, if all may be written.

    Args:
        outputs: each file to write, and what it is made of, for messages.
        inputs: files that are read, which are never written over.
        force: let other files be replaced that this package did not write.

    Raises:
        ValueError: two outputs are the same file, or one is an input.
        FileExistsError: there is a file that this package did not write, and `force` is False.
        OSError: a path is that of a folder, too long, or cannot be written to.
    """
    outputs = [(Path(path), source) for path, source in outputs]
    check_apart(outputs, inputs)
    foreign: list[Path] = []
    for path, _ in outputs:
        try:
            check_output(path, force=force)
        except FileExistsError:
            foreign.append(path)
    if foreign:
        others = f" (and {len(foreign) - 1} more of the files to write)" if len(foreign) > 1 else ""
        raise FileExistsError(f"{foreign[0]}{others} {_NOT_OURS}")
    for folder in {path.parent for path, _ in outputs}:
        remove_unfinished(folder)


def check_apart(outputs: Iterable[tuple[Path, object]], inputs: Iterable[str | Path] = ()) -> None:
    """Raise `ValueError` if two outputs, each with what it is made of, are the same file, or one is an input."""
    read = {place: path for path in map(Path, inputs) for place in _places(path)}
    sources: dict[object, object] = {}
    for path, source in outputs:
        for place in _places(path, follow=False):
            if place in read:
                raise ValueError(f"{path} would be written over the input {read[place]}; name another place for it")
        place = _place(path)
        if place in sources:
            raise ValueError(f"{sources[place]} and {source} would both be written to {path}")
        sources[place] = source


def check_output(path: str | Path, *, force: bool = False) -> None:
    """Raise `OSError` if a file cannot be written, or `FileExistsError` if it is not ours to replace."""
    check_writable(path)
    if not force and os.path.lexists(path) and not is_own(path):
        raise FileExistsError(f"{path} {_NOT_OURS}")


def check_writable(path: str | Path) -> None:
    """Raise `OSError`, in words that name the path, if no file can be written there. Nothing is written."""
    path = Path(path)
    longest = _name_limit(path.parent)
    for name in path.parts:
        if len(os.fsencode(name)) > longest:
            raise OSError(errno.ENAMETOOLONG, f"a name of more than {longest} bytes cannot be written", str(path))
    if not path.name or os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder, where a file is to be written")


@lru_cache(maxsize=1 << 16)
def _name_limit(folder: Path) -> int:
    """Longest name in bytes that a folder takes which is there or could be made. Raises `OSError` if it cannot be."""
    found = folder
    while not os.path.lexists(found) and found != found.parent:
        found = found.parent
    if not os.path.isdir(found):
        raise NotADirectoryError(f"{found} is no folder, so that nothing can be written into it")
    if not os.access(found, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write into the folder {found}")
    return os.pathconf(found, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255


def _place(path: Path) -> str:
    """One spelling of a path, whose last part may be a link itself."""
    return os.path.join(_real_folder(path.parent), path.name)


@lru_cache(maxsize=1 << 16)
def _real_folder(folder: Path) -> str:
    return os.path.realpath(folder)


def _places(path: Path, *, follow: bool = True) -> Iterator[object]:
    """By what a file may be met: its path, that which it links to, and its number on the disk (`a.png` as `A.png`)."""
    yield _place(path)
    if follow:
        yield os.path.realpath(path)
    with contextlib.suppress(OSError):
        found = path.stat() if follow else path.lstat()
        yield found.st_dev, found.st_ino


def _png_mark() -> bytes:
    body = b"tEXt" + b"Software\0" + MAKER.encode()
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def _text_mark(suffix: str) -> bytes:
    return f"\n{_COMMENTS[suffix]}\n".encode()


def _made_by(length: bytes, start: bytes) -> bool:
    """Whether a safetensors header, by its length and its start, names this package as its format."""
    try:
        header = parse_json(start[: int.from_bytes(length, "little")])
        return str(header["__metadata__"]["format"]).startswith(MAKER)
    except (ValueError, KeyError, TypeError):
        return False
