"""Files of text that others made, read without fear for how large they are, how deep, or that they never end.

JSON and YAML from outside come in by these functions, whatever program asks for them.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

LARGEST = 1 << 20
"""Bytes of the largest config that is read; the lists of a thousand classes' names are a tenth of it."""
MOST_VALUES = 100_000
"""Values that a YAML may stand for once its aliases are written out."""
DEEPEST = 50
"""Levels that a YAML may be nested."""

_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}

# With the parser that is written in Python, all metafiles of an OpenMMLab package would take seconds.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check_file(path: str | Path) -> None:
    """Raise `OSError` unless there is a file at a path; a pipe or a device may be waited for, or read, for ever."""
    kind = stat.S_IFMT(os.stat(path).st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, "is a folder, where a file is to be read", str(path))
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"is {_KINDS.get(kind, 'no file')}, where a file is to be read", str(path))


def read_text(path: str | Path, most: int | None = LARGEST) -> str:
    """A file of text.

    Args:
        path: the file.
        most: bytes that it may have; None for as many as there are.

    Raises:
        OSError: it is not there, no file, or cannot be read.
        ValueError: it is larger, or no text in UTF-8.
    """
    check_file(path)
    with open(path, "rb") as file:
        content = file.read(-1 if most is None else most + 1)
    if most is not None and len(content) > most:
        raise ValueError(f"{path} is larger than such a file can be ({most} bytes), and is not read")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8: {error}") from error


def parse_json(text: str | bytes, hook: Callable[[dict], Any] | None = None) -> Any:
    """What JSON stands for. Raises `ValueError`, also for what is nested too deeply to be read.

    Args:
        text: the JSON.
        hook: gives what takes the place of each object, as soon as it is read.
    """
    try:
        return json.loads(text, object_hook=hook)  # noqa: TID251
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: str | Path, most: int | None = LARGEST, hook: Callable[[dict], Any] | None = None) -> Any:
    """What a JSON file stands for. Raises as `read_text` does, and `ValueError` if it is no JSON."""
    text = read_text(path, most)
    try:
        return parse_json(text, hook)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def read_yaml(path: str | Path) -> Any:
    """What a YAML file of a config's size stands for. Raises as `read_text` does, and `ValueError` if it is no such."""
    text = read_text(path)
    try:
        return parse_yaml(text)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is not YAML of plain data: {' '.join(str(error).split())}") from error


def parse_yaml(text: str) -> Any:
    """What YAML of plain data stands for. Raises as `compose_yaml` does."""
    root = compose_yaml(text)
    if root is None:
        return None
    loader = _Loader("")
    try:
        return loader.construct_document(root)
    finally:
        loader.dispose()


def compose_yaml(text: str) -> yaml.Node | None:
    """The nodes of a YAML, whose values are not made yet; None for an empty one.

    A few lines of aliases to aliases ("billion laughs") stand for more values than there is memory for, as soon as
    somebody copies them.

    Raises:
        ValueError: it is larger than a config can be, with its aliases written out, or contains itself.
        yaml.YAMLError: it is no YAML.
    """
    if len(text) > LARGEST:
        raise ValueError(f"it has {len(text)} characters, and a config of more than {LARGEST} is not read")
    try:
        root = yaml.compose(text, Loader=_Loader)  # noqa: TID251
    except RecursionError:
        raise ValueError(f"it is nested more than {DEEPEST} levels deep") from None
    if root is not None and _measure(root, {}, ())[0] > MOST_VALUES:
        raise ValueError(f"with its aliases written out, it has more than {MOST_VALUES} values")
    return root


def _measure(node: yaml.Node, measured: dict[int, tuple[int, int]], above: tuple[int, ...]) -> tuple[int, int]:
    """Values and levels that a node stands for; one that aliases lead to is looked at once, and counts for each."""
    if not isinstance(node, yaml.CollectionNode):
        return 1, 0
    key = id(node)
    if key in above:
        raise ValueError("it contains itself, by an alias to what it lies in")
    if key not in measured and len(above) < DEEPEST:
        is_mapping = isinstance(node, yaml.MappingNode)
        parts = [part for pair in node.value for part in pair] if is_mapping else node.value
        found = [_measure(part, measured, (*above, key)) for part in parts]
        values, levels = zip(*found, strict=True) if found else ((), ())
        measured[key] = 1 + sum(values), 1 + max(levels, default=0)
    if key not in measured or measured[key][1] > DEEPEST:
        raise ValueError(f"it is nested more than {DEEPEST} levels deep")
    return measured[key]
