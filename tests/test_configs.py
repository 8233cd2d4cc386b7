"""The configs that the package carries, by name."""

from __future__ import annotations

import pytest

from focalnet_backbone.configs import (
    FOLDER,
    describe_config,
    find_config,
    is_mmengine,
    list_configs,
    open_config,
    require_mmengine,
)
from tests.documents.pages import ROOT

SETUPS = list_configs()


def test_the_packages_configs_are_those_of_the_repository():
    for path in (ROOT / "configs").rglob("*.*"):
        assert (FOLDER / path.relative_to(ROOT / "configs")).read_bytes() == path.read_bytes()


def test_bases_are_no_setups():
    assert set(list_configs("mm*")) == {name for name in SETUPS if name.startswith("mm")}
    assert all("/_base_" not in name and "Base" not in name for name in SETUPS)


@pytest.mark.parametrize("name", SETUPS)
def test_a_config_is_found_by_its_name_and_described_by_its_first_line(name):
    host, _, file = name.partition("/")
    assert find_config(name) == find_config(file, host) == FOLDER / name
    assert "FocalNet" in describe_config(FOLDER / name)
    assert is_mmengine(FOLDER / name) == (host != "detectron2")


def test_a_name_without_suffix_is_enough_where_it_is_the_only_one():
    assert find_config("upernet_focalnet_sample") == find_config("mmseg/upernet_focalnet_sample")
    with pytest.raises(ValueError, match=r"may be any of detectron2/mask_rcnn_focalnet_tiny_srf_1x.py, detectron2/"):
        find_config("mask_rcnn_focalnet_tiny_srf_1x", "detectron2")


def test_a_users_file_goes_before_a_config_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "upernet_focalnet_sample.py"
    assert open_config(name) == FOLDER / "mmseg" / name
    (tmp_path / name).touch()
    assert open_config(name).resolve() == tmp_path / name


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(FileNotFoundError, match=r"no config at upernet_sample, .* mean 'upernet_focalnet_sample'"):
        open_config("upernet_sample")


BROKEN = {"cut off": b"model = dict(", "binary": b"a = 1\x00", "too deep": b"(" * 5000, "no text": b"model = '\xff'"}


@pytest.mark.parametrize("name", BROKEN)
def test_a_config_that_is_no_python_is_named(tmp_path, name):
    (tmp_path / "mine.py").write_bytes(BROKEN[name])
    with pytest.raises(ValueError, match=r"mine\.py is no valid config: "):
        is_mmengine(tmp_path / "mine.py")


@pytest.mark.parametrize("text", ["", "import os\nprint(os.getcwd())\n", "hello = 1\n"])
def test_python_that_is_no_config_is_named(tmp_path, text):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ValueError, match=r"mine\.py is no config: it names neither _base_ nor default_scope"):
        is_mmengine(tmp_path / "mine.py")


def test_a_config_of_the_other_host_is_refused_by_what_it_is_known_by(tmp_path):
    (tmp_path / "mine.py").write_text("from .base import *\n")
    with pytest.raises(ValueError, match=r"mine\.py is a config of detectron2, as it names neither .*; races are not"):
        require_mmengine(tmp_path / "mine.py", "races are not")
    with pytest.raises(ValueError, match="yaml is a config of detectron2; races are not"):
        require_mmengine(find_config("mask_rcnn_focalnet_sample.yaml"), "races are not")
    require_mmengine(find_config("upernet_focalnet_sample"), "races are not")
