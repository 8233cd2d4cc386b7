"""What was found out about files, by several processes, and remembered as long as the files stay the same."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import multiprocessing
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from filelock import FileLock
from tqdm import tqdm

from focalnet_backbone.system.inputs import parse_json
from focalnet_backbone.system.interruption import leave_interrupts_to_parent

try:
    import fcntl
except ImportError:  # On Windows.
    fcntl = None

FEW = 100
"""Up to so many files are looked at in this process, where starting others would take longer."""
SMALL = 16 << 20
"""Up to so many bytes, too. The memory that large files need goes back to the system with the process."""
CHUNK, CHUNK_HERE = 64, 16
"""Files whose answers are kept together: of another process, and of this one."""


class Passing(dict):
    """An answer that says nothing lasting of the file, such as of a lack of memory: it is given, and not kept."""


def cache_folder() -> Path:
    """The folder of what is remembered: `$FOCALNET_CACHE`, or `focalnet_backbone` in the user's folder for caches.

    It is among temporary files for a user without a home, as numbers that a container is told to run as are.
    """
    general = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(os.environ.get("FOCALNET_CACHE") or Path(general, "focalnet_backbone"))
    try:
        return folder.expanduser()
    except RuntimeError:
        return Path(tempfile.gettempdir(), f"focalnet_backbone-{os.geteuid()}")


@contextlib.contextmanager
def one_at_a_time(name: str, *, patience: float = -1) -> Iterator[None]:
    """Let processes of this machine that give one name do the same work one after another: the first finds out,
    the others are told from what is remembered.

    Where there is no place for a lock, or the file system knows none, they all do it at once.

    Args:
        name: of the work.
        patience: seconds after which one of them no longer waits for others, which may be stopped. Less than 0: none.
    """
    name = os.path.abspath(name)
    path = cache_folder() / f"{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}.lock"
    lock = FileLock(path, timeout=patience)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_locks(path)
        lock.acquire()
    except OSError:  # Also that it took too long.
        pass
    try:
        yield
    finally:
        lock.release()


def _check_locks(path: Path) -> None:
    """Raise `OSError` if a file, made if it is not there, cannot be locked: FileLock would wait for ever."""
    if fcntl is not None:
        with path.open("ab") as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def find_out(question: str, paths: Sequence[str], work: Callable[[str], Any], *, title: str) -> dict[str, Any]:
    """What `work` says of each file, or said when it was asked the same of the same file.

    A file is the same if its size and time of change are. Answers are kept as they come, so that a second start goes
    on where a first one was interrupted. Where they cannot be kept, all is found out again.

    Args:
        question: what is asked, with everything that the answer depends on besides the file.
        paths: the files.
        work: takes a path and returns what JSON can hold, or `Passing`. Has to be picklable where processes are not
            forked.
        title: of the progress bar.

    Returns the answer by path; None for a file that is not there.
    """
    stamps = {path: _stamp(path) for path in dict.fromkeys(paths)}
    there = [path for path, stamp in stamps.items() if stamp]
    with contextlib.closing(_Store()) as store:
        key = hashlib.sha256(question.encode()).hexdigest()[:16]
        found = store.read(key, stamps, there)
        open_ones = [path for path in there if path not in found]
        size = sum(stamps[path][0] for path in open_ones)
        with tqdm(total=len(open_ones), desc=title, unit="file", leave=False, disable=None, delay=1) as bar:
            parallel = len(open_ones) > FEW or size > SMALL
            for answers in _in_processes(open_ones, work) if parallel else _chunks_here(open_ones, work):
                store.write(key, stamps, {path: a for path, a in answers.items() if not isinstance(a, Passing)})
                found.update(answers)
                bar.update(len(answers))
    return {path: found.get(path) for path in paths}


def _absolute(paths: Iterable[str]) -> list[str]:
    """`os.path.abspath` of each, asked once for each folder; what is no text in UTF-8 as SQLite can hold it."""
    folders: dict[str, str] = {}
    found = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.abspath(folder)
        found.append(os.path.join(folders[folder], name) if name not in ("", ".", "..") else os.path.abspath(path))
    return [name if name.isascii() else name.encode("utf-8", "backslashreplace").decode() for name in found]


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def _chunks_here(paths: list[str], work: Callable[[str], Any]) -> Iterator[dict[str, Any]]:
    for i in range(0, len(paths), CHUNK_HERE):
        yield {path: work(path) for path in paths[i : i + CHUNK_HERE]}


def _in_processes(paths: list[str], work: Callable[[str], Any]) -> Iterator[dict[str, Any]]:
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    length = max(1, min(CHUNK, len(paths) // (4 * workers)))
    chunks = [paths[i : i + length] for i in range(0, len(paths), length)]
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    pool = ProcessPoolExecutor(
        min(workers, len(chunks)), multiprocessing.get_context(method), initializer=_start, initargs=(work,)
    )
    try:
        for future in as_completed([pool.submit(_look_at, chunk) for chunk in chunks]):
            yield future.result()
    except BaseException:  # What they are at would be waited for.
        for worker in (pool._processes or {}).values():
            worker.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


_work: Callable[[str], Any]


def _start(work: Callable[[str], Any]) -> None:
    global _work
    _work = work
    gc.freeze()  # What the parent had is not looked through, which would copy the memory that it lies in.
    leave_interrupts_to_parent()


def _look_at(paths: list[str]) -> dict[str, Any]:
    return {path: _work(path) for path in paths}


class _Store:
    """Answers in a file of SQLite; without one where it cannot be written."""

    def __init__(self) -> None:
        path = cache_folder() / "facts.sqlite"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.database = self._open(path)
        except sqlite3.OperationalError:  # It cannot be written.
            self.database = self._open(":memory:")
        except sqlite3.DatabaseError:  # Damaged, or of something else.
            path.unlink(missing_ok=True)
            self.database = self._open(path)
        except OSError:
            self.database = self._open(":memory:")

    @staticmethod
    def _open(path: str | Path) -> sqlite3.Connection:
        database = sqlite3.connect(path, timeout=60)
        database.execute("PRAGMA synchronous = OFF")  # What a power cut takes is found out again.
        database.execute(
            "CREATE TABLE IF NOT EXISTS facts (question TEXT, path TEXT, size INTEGER, changed INTEGER, answer TEXT, "
            "PRIMARY KEY (question, path)) WITHOUT ROWID"
        )
        return database

    def read(self, key: str, stamps: dict[str, tuple[int, int] | None], paths: list[str]) -> dict[str, Any]:
        absolute = dict(zip(_absolute(paths), paths, strict=True))
        # Of many, one walk along the index from the first to the last takes a tenth of the time of looking each up.
        many = len(absolute) > FEW
        ranges = [(min(absolute), max(absolute))] if many else [(name, name) for name in absolute]
        query = "SELECT path, size, changed, answer FROM facts WHERE question = ? AND path BETWEEN ? AND ?"
        answers: dict[str, str] = {}
        with contextlib.suppress(sqlite3.DatabaseError):
            for first, last in ranges:
                for name, size, changed, answer in self.database.execute(query, [key, first, last]):
                    path = absolute.get(name)
                    if path is not None and stamps[path] == (size, changed):
                        answers[path] = answer
        return dict(zip(answers, parse_json(f"[{','.join(answers.values())}]"), strict=True))

    def write(self, key: str, stamps: dict[str, tuple[int, int] | None], answers: dict[str, Any]) -> None:
        names = _absolute(answers)
        rows = [
            (key, name, *stamps[path], json.dumps(answer))
            for name, (path, answer) in zip(names, answers.items(), strict=True)
        ]
        with contextlib.suppress(sqlite3.DatabaseError), self.database:
            self.database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?)", rows)

    def close(self) -> None:
        self.database.close()
