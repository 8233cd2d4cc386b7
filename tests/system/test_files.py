"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from focalnet_backbone.system import files
from focalnet_backbone.system.files import remove_unfinished, whole_file, whole_folder


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with whole_file(path) as unfinished:
        unfinished.write_text("whole")
        assert unfinished.suffix == ".txt"
        assert not path.exists()
    assert path.read_text() == "whole"
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_whatever_stops_the_writing_leaves_the_older_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("older")

    def write_half() -> None:
        with whole_file(path) as unfinished:
            unfinished.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text() == "older"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_name_may_be_as_long_as_a_name_can_be(tmp_path):
    path = tmp_path / ("n" * 251 + ".txt")
    with whole_file(path) as unfinished:
        unfinished.write_text("whole")
    assert path.read_text() == "whole"


def test_two_that_write_one_file_at_once_do_not_meet(tmp_path):
    path = tmp_path / "a.txt"
    with whole_file(path) as first:
        with whole_file(path) as second:
            first.write_text("first")
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"


def test_a_folder_takes_its_place_when_it_is_whole(tmp_path):
    with whole_folder(tmp_path / "a") as unfinished:
        (unfinished / "b").touch()
    with pytest.raises(FileNotFoundError), whole_folder(tmp_path / "c") as unfinished:
        (unfinished / "no" / "b").touch()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["a", "a/b"]


WRITE_AND_WAIT = """
import sys, time
from focalnet_backbone.system.files import whole_file, whole_folder
with whole_file(sys.argv[1] + "/a.png") as file, whole_folder(sys.argv[1] + "/b") as folder:
    file.write_text("half")
    (folder / "c").touch()
    print("ready", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path, monkeypatch):
    process = subprocess.Popen([sys.executable, "-c", WRITE_AND_WAIT, tmp_path], stdout=subprocess.PIPE)
    process.stdout.readline()
    remove_unfinished(tmp_path)
    assert len(os.listdir(tmp_path)) == 2
    process.kill()
    process.communicate()
    assert len(os.listdir(tmp_path)) == 2
    monkeypatch.setattr(files, "_swept", set())  # As for another process.
    with whole_file(tmp_path / "d") as unfinished:
        assert sorted(os.listdir(tmp_path)) == [unfinished.name]


PIXELS = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)
WRITERS = {
    "text": lambda path: path.write_text("x" * 20000),
    "torch": lambda path: torch.save({"a": torch.zeros(20000)}, path),
    "torch's older format": lambda path: torch.save([torch.zeros(20000)], path, _use_new_zipfile_serialization=False),
    "png": lambda path: Image.fromarray(PIXELS).save(path),
    "jpg": lambda path: Image.fromarray(PIXELS).save(path, quality=100),
    "figure": lambda path: Figure().savefig(path, dpi=900),  # Of one colour, which compresses well.
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_told_with_the_files_name_whoever_writes(tmp_path, small_files, writer):
    path = tmp_path / f"a.{writer if writer in ('png', 'jpg') else 'png' if writer == 'figure' else 'bin'}"
    with pytest.raises(OSError, match="File too large") as failure, whole_file(path) as unfinished:
        WRITERS[writer](unfinished)
    assert (failure.value.errno, failure.value.filename) == (errno.EFBIG, str(path))
    assert not os.listdir(tmp_path)


def test_an_error_that_is_not_of_the_writing_stays_as_it_is(tmp_path):
    with pytest.raises(RuntimeError, match="sizes differ"), whole_file(tmp_path / "a"):
        raise RuntimeError("sizes differ")
    with pytest.raises(FileNotFoundError, match="nowhere"), whole_file(tmp_path / "a"):
        Path("nowhere").read_text()
