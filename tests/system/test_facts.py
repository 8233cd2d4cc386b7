"""What is found out about files is remembered as long as they stay the same, and found out in processes."""

from __future__ import annotations

import errno
import multiprocessing
import os
import sqlite3
import tempfile
import time
from pathlib import Path

import pytest

from focalnet_backbone.system import facts
from focalnet_backbone.system.facts import Passing, cache_folder, find_out, one_at_a_time


@pytest.fixture
def asked(tmp_path, monkeypatch) -> list[str]:
    """The files that were looked at."""
    monkeypatch.setenv("FOCALNET_CACHE", str(tmp_path / "cache"))
    return []


@pytest.fixture
def files(tmp_path) -> list[str]:
    paths = [tmp_path / f"{number:03d}.txt" for number in range(7)]
    for path in paths:
        path.write_text(path.stem)
    return [str(path) for path in paths]


def length(path: str) -> dict:
    """A fact, and the process that found it out."""
    return {"length": Path(path).stat().st_size, "process": os.getpid()}


def test_a_file_is_looked_at_again_only_if_it_or_the_question_changes(asked, files):
    def look(path):
        asked.append(path)
        return Path(path).read_text()

    def ask(question="text"):
        asked.clear()
        return find_out(question, files, look, title="")

    first = ask()
    assert asked == files
    assert ask() == first == {path: Path(path).stem for path in files}
    assert asked == []
    Path(files[2]).write_text("longer than before")
    assert ask()[files[2]] == "longer than before"
    assert asked == [files[2]]
    os.utime(files[3], (1, 1))
    ask()
    assert asked == [files[3]]
    ask("another")
    assert asked == files
    Path(files[4]).unlink()
    assert ask()[files[4]] is None
    assert asked == []


@pytest.mark.parametrize("few", [0, 100], ids=["processes", "here"])
def test_a_passing_answer_is_given_and_not_kept(asked, files, few, monkeypatch):
    monkeypatch.setattr(facts, "FEW", few)
    passing = {path: {"error": "no memory"} for path in files}
    assert find_out("read", files, lambda path: Passing(error="no memory"), title="") == passing
    assert find_out("read", files, length, title="").keys() == passing.keys()
    assert all("length" in fact for fact in find_out("read", files, pytest.fail, title="").values())


def test_many_files_are_looked_at_by_other_processes(asked, files, monkeypatch):
    monkeypatch.setattr(facts, "FEW", 3)
    found = find_out("length", files, length, title="")
    assert list(found) == files
    assert {fact["length"] for fact in found.values()} == {3}
    assert os.getpid() not in {fact["process"] for fact in found.values()}
    assert find_out("length", files, length, title="") == found


def test_an_interruption_does_not_wait_for_what_other_processes_are_at(asked, files, tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "FEW", 3)
    begun = tmp_path / "begun"
    others = set(multiprocessing.active_children())

    def busy(path):
        begun.touch()
        return sum(range(10**12))  # For hours, without a look at signals.

    def interrupt(futures):
        while not begun.exists():
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(facts, "as_completed", interrupt)
    with pytest.raises(KeyboardInterrupt):
        find_out("interrupted", files, busy, title="")
    assert set(multiprocessing.active_children()) <= others


def test_what_was_found_before_an_interruption_is_kept(asked, files, monkeypatch):
    monkeypatch.setattr(facts, "CHUNK_HERE", 2)

    def interrupt(path):
        if path == files[5]:
            raise KeyboardInterrupt
        return 1

    with pytest.raises(KeyboardInterrupt):
        find_out("interrupted", files, interrupt, title="")
    find_out("interrupted", files, asked.append, title="")
    assert asked == files[4:]


def test_a_damaged_or_missing_place_to_remember_is_no_reason_to_stop(asked, files, tmp_path, monkeypatch):
    cache_folder().mkdir()
    (cache_folder() / "facts.sqlite").write_bytes(b"no database" * 500)
    assert find_out("length", files, length, title="")[files[0]]["length"] == 3
    find_out("length", files, length, title="")
    assert sqlite3.connect(cache_folder() / "facts.sqlite").execute("SELECT count(*) FROM facts").fetchone() == (7,)
    monkeypatch.setenv("FOCALNET_CACHE", str(tmp_path / "000.txt" / "below a file"))
    assert find_out("length", files, length, title="")[files[0]]["length"] == 3
    with one_at_a_time("name"):
        pass


def test_processes_of_one_name_wait_for_each_other(asked, tmp_path):
    with one_at_a_time("training"):
        child = os.fork()
        if child == 0:
            with one_at_a_time("training"):
                os._exit((tmp_path / "done").exists())
        (tmp_path / "done").touch()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_nobody_waits_longer_than_he_has_patience(asked):
    with one_at_a_time("training"), one_at_a_time("training", patience=0.1):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_lets_all_work_at_once(number, asked, monkeypatch):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with one_at_a_time("training"), one_at_a_time("training"):
        pass


def test_a_name_may_be_no_text(asked):
    with one_at_a_time(os.fsdecode(b"/config-\xff.py")):
        pass


def test_a_user_without_a_home_has_a_folder_among_temporary_files(monkeypatch, tmp_path):
    for name in ("FOCALNET_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert cache_folder().parent == tmp_path
