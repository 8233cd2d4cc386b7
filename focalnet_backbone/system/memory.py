"""What a process does with memory: that which it has freed, and how often it looks for what nothing uses."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
from collections.abc import Iterator

# Parameters of mallopt(3), and what they are set to, in bytes. No larger threshold for mmap is allowed.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT, _LARGEST_FROM_HEAP = 2**30, 2**25


def keep_freed_memory() -> bool:
    """Have the C library keep up to 1 GiB of freed memory for what comes next, where it would hand it back at once.

    A network frees the maps of each block and asks for as much for the next; each time, the system finds and clears
    pages: a tenth of a forward pass at 512x512 by glibc's own settings. Nothing is changed for other C libraries, nor
    where the environment says how to allocate (`MALLOC_*`, `GLIBC_TUNABLES`, a preloaded allocator). Returns whether
    it is kept.
    """
    told = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if told or "LD_PRELOAD" in os.environ or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_FROM_HEAP) and mallopt(_TRIM_THRESHOLD, _KEPT))


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Make many objects that stay in use, such as modules or what a file holds: Python's collector would look through
    them again and again, which is a third to half of the time, and find nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
