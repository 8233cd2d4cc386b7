"""What programs write meets neither a user's file nor an input nor another result."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from focalnet_backbone import FeaturePyramid
from focalnet_backbone.system.outputs import claim, is_own, result_file

PICTURE = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))


def write_result(path: Path) -> None:
    with result_file(path) as unfinished:
        if path.suffix == ".png":
            PICTURE.save(unfinished)
        else:
            unfinished.write_text(
                {".json": "[1]", ".html": "<p>1</p>", ".yaml": "a: [1]", ".py": "a = [1]"}[path.suffix]
            )


@pytest.mark.parametrize("suffix", [".png", ".json", ".html", ".yaml", ".py"])
def test_a_result_is_known_as_ours_wherever_it_is_moved_until_it_is_saved_anew(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_result(path)
    copy = tmp_path / f"copy{suffix}"
    copy.write_bytes(path.read_bytes())
    assert is_own(copy)
    if suffix == ".png":
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(PICTURE))
        Image.open(path).save(copy)
    else:
        read = {".json": json.loads, ".yaml": yaml.safe_load, ".py": lambda text: compile(text, "a", "exec")}
        assert read.get(suffix, str)(path.read_text())
        copy.write_text(path.read_text().rstrip())
    assert not is_own(copy)


def test_a_pyramid_is_ours_and_other_safetensors_are_not(tmp_path):
    FeaturePyramid({"a": torch.zeros(1, 2, 2)}, {"a": 4}, torch.zeros(3, 8, 8, dtype=torch.uint8)).save(
        tmp_path / "ours.safetensors"
    )
    save_file({"a": torch.zeros(1)}, tmp_path / "theirs.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\0" * 20)
    assert [is_own(tmp_path / f"{name}.safetensors") for name in ("ours", "theirs", "broken", "none")] == [
        True,
        False,
        False,
        False,
    ]


def test_a_users_file_is_refused_unless_forced_and_our_own_is_not(tmp_path):
    own, foreign = tmp_path / "own.png", tmp_path / "foreign.png"
    write_result(own)
    PICTURE.save(foreign)
    claim([(own, "x")])
    with pytest.raises(FileExistsError, match=r"foreign.png exists already .* --force"):
        claim([(own, "x"), (foreign, "y")])
    claim([(own, "x"), (foreign, "y")], force=True)
    link = tmp_path / "link.png"
    link.symlink_to(own)
    with pytest.raises(FileExistsError, match="link"):
        claim([(link, "x")])


def test_an_input_is_never_an_output_by_any_spelling(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    write_result(folder / "a.png")
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "a_link.png").symlink_to(folder / "a.png")
    for photo in ("photos/a.png", "link/a.png", "photos/../photos/a.png", "a_link.png"):
        for output in (folder / "a.png", Path("link/a.png"), Path("photos/../photos/a.png")):
            with pytest.raises(ValueError, match="would be written over the input"):
                claim([(output, "x")], [photo], force=True)


def test_two_results_never_meet(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match=r"cat.jpg and cat.png would both be written to"):
        claim([(tmp_path / "cat.txt", "cat.jpg"), (tmp_path / "link" / "cat.txt", "cat.png")], force=True)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("folder", "folder is a folder"),
        ("file/a.png", "file is no folder"),
        ("n" * 256, "a name of more than 255 bytes"),
        ("new/" + "ü" * 128 + "/a.png", "a name of more than 255 bytes"),
    ],
)
def test_what_cannot_be_written_is_refused_before_and_nothing_is_made(tmp_path, path, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=message):
        claim([(tmp_path / path, "x")])
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_a_folder_that_takes_no_files_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # As root may write anywhere.
    with pytest.raises(PermissionError, match=f"cannot write into the folder {tmp_path}"):
        claim([(tmp_path / "new" / "a.png", "x")])
