"""Writing files that are whole or not there."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a path to write to, beside `path` and with its suffix; it takes the place of `path` when all went well.

    Whatever stops the writing, an older file at `path` stays as it was and nothing half-written is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not made of the file's own name, which may be as long as a name can be.
    unfinished = path.with_name(f".unfinished-{secrets.token_hex(8)}{path.suffix}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
