"""`focalnet config`: one whole config, which the frameworks' own tools take as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mmdet
import mmseg
import numpy as np
import pytest
import yaml
from detectron2.config import LazyConfig, get_cfg
from detectron2.data import MetadataCatalog
from mmengine.config import Config
from PIL import Image

from focalnet_backbone.command.config import main
from focalnet_backbone.configs import FOLDER, find_config
from focalnet_backbone.detectron2 import add_focalnet_config, get_config
from focalnet_backbone.detectron2.backbone import FocalNetBackbone
from focalnet_backbone.detectron2.jobs import load_job
from focalnet_backbone.sample.scenes import make_sample_dataset

TOOLS = {"mmseg": Path(mmseg.__file__).parent / ".mim/tools", "mmdet": Path(mmdet.__file__).parent / ".mim/tools"}
SMALL = {
    "mmseg/upernet_focalnet_sample": [
        "model.decode_head.in_channels=[8,16,32,64]",
        "model.auxiliary_head.in_channels=32",
    ],
    "mmdet/mask_rcnn_focalnet_sample": ["model.neck.in_channels=[8,16,32,64]"],
}


def write(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["focalnet config", *map(str, arguments)])
    return main()


@pytest.mark.parametrize(
    "name", ["mmseg/upernet_focalnet_tiny_lrf_160k_ade20k_512x512.py", "mmdet/atss_focalnet_tiny_lrf_3x.py"]
)
def test_a_flat_config_says_what_its_bases_say(name, tmp_path, monkeypatch):
    assert write(monkeypatch, name, "train_dataloader.batch_size=3", "--out", tmp_path / "mine.py") == 0
    text = (tmp_path / "mine.py").read_text()
    assert "\n_base_ =" not in text
    expected = Config.fromfile(FOLDER / name)
    expected.train_dataloader.batch_size = 3
    assert Config.fromfile(tmp_path / "mine.py").to_dict() == expected.to_dict()
    assert expected.custom_imports == {"imports": ["focalnet_backbone.openmmlab"], "allow_failed_imports": False}


def test_a_config_that_does_not_import_the_plugin_does_once_it_is_flat(tmp_path, monkeypatch, capsys):
    (tmp_path / "own.py").write_text('"""Mine."""\ndefault_scope = "mmseg"\nmodel = dict(type="EncoderDecoder")\n')
    assert write(monkeypatch, tmp_path / "own.py") == 0
    text = capsys.readouterr().out  # The config alone: what mmengine says of the scope goes elsewhere.
    assert text.startswith("# Mine.\n")
    assert Config.fromstring(text, ".py").custom_imports.imports == ["focalnet_backbone.openmmlab"]


@pytest.mark.parametrize("name", SMALL)
def test_the_frameworks_own_tool_trains_a_flat_config_in_another_folder(name, tmp_path, monkeypatch):
    """The tools of their wheels import no plugin before they read a config."""
    make_sample_dataset(tmp_path / "data" / "sample", train=2, val=1, size=64)
    loading = ("num_workers=0", "persistent_workers=False")
    values = [f"{split}_dataloader.{value}" for split in ("train", "val") for value in loading]
    values += ["train_cfg.max_iters=2", "train_cfg.val_interval=2", "train_dataloader.batch_size=2"]
    values += ["model.backbone.embed_dim=8"]
    assert write(monkeypatch, name, *values, *SMALL[name], "--out", tmp_path / "mine.py") == 0
    # Two threads would wait for each other where there is one processor.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    tool = TOOLS[name.partition("/")[0]] / "train.py"
    command = [sys.executable, str(tool), "mine.py", "--work-dir", "out"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert (tmp_path / "out" / "iter_2.pth").is_file()


def test_a_flat_yaml_is_the_cfg_node(tmp_path, monkeypatch):
    name = "mask_rcnn_focalnet_small_lrf_3x.yaml"
    assert write(monkeypatch, name, "SOLVER.IMS_PER_BATCH=8", "--out", tmp_path / "mine.yaml") == 0
    assert "_BASE_" not in (tmp_path / "mine.yaml").read_text()
    cfg, expected = get_cfg(), get_config(name)
    add_focalnet_config(cfg)
    cfg.merge_from_file(str(tmp_path / "mine.yaml"))
    expected.SOLVER.IMS_PER_BATCH = 8
    # In YAML, nested tuples are lists, and a value that stands in two places may be named.
    assert yaml.safe_load(cfg.dump()) == yaml.safe_load(expected.dump())


def test_a_flat_config_is_written_over_an_older_one_but_not_over_a_file_of_the_users(tmp_path, monkeypatch, capsys):
    (tmp_path / "own.py").write_text('default_scope = "mmseg"\nmodel = dict(type="EncoderDecoder")\n')
    out = tmp_path / "mine.py"
    assert [write(monkeypatch, tmp_path / "own.py", "--out", out) for _ in range(2)] == [0, 0]
    out.write_text("mine\n")
    assert write(monkeypatch, tmp_path / "own.py", "--out", out) == 2
    assert "mine.py exists already" in capsys.readouterr().err
    assert out.read_text() == "mine\n"
    assert write(monkeypatch, tmp_path / "own.py", "--out", tmp_path / "own.py", "--force") == 2
    assert write(monkeypatch, tmp_path / "own.py", "--out", out, "--force") == 0


def test_a_flat_lazy_config_is_read_back_by_detectron2(tmp_path, monkeypatch):
    name = "detectron2/mask_rcnn_focalnet_tiny_lrf_1x.py"
    assert write(monkeypatch, name, "train.max_iter=7", "--out", tmp_path / "mine.yaml") == 0
    cfg = LazyConfig.load(str(tmp_path / "mine.yaml"))
    assert cfg.train.max_iter == 7
    # detectron2 gives the class itself where it has been imported.
    target = cfg.model.backbone.bottom_up._target_
    assert target in (FocalNetBackbone, "focalnet_backbone.detectron2.backbone.FocalNetBackbone")
    assert cfg.model.keys() == LazyConfig.load(str(find_config(name))).model.keys()


@pytest.fixture
def own_data(tmp_path) -> list[str]:
    """Two photos with label images of three classes, as arguments."""
    numbers = np.random.default_rng(0)
    for folder, shape, values in (("photos", (24, 32, 3), 256), ("labels", (24, 32), 3)):
        (tmp_path / folder).mkdir()
        for name in "ab":
            pixels = numbers.integers(0, values, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{name}.png")
    (tmp_path / "names.txt").write_text("road\nsky\ncar\n")
    folders = {"images": tmp_path / "photos", "labels": tmp_path / "labels"}
    arguments = [f"--{split}-{part}={folder}" for split in ("train", "val") for part, folder in folders.items()]
    return [*arguments, f"--classes={tmp_path / 'names.txt'}"]


def test_own_data_stands_in_the_written_config_of_mmengine(tmp_path, monkeypatch, own_data):
    out = tmp_path / "mine.py"
    assert write(monkeypatch, "upernet_focalnet_sample", *own_data, "--size", "32x24", "--out", out) == 0
    cfg = Config.fromfile(out)
    assert cfg.model.decode_head.num_classes == cfg.model.auxiliary_head.num_classes == 3
    for loader in ("train_dataloader", "val_dataloader"):
        assert list(cfg[loader].dataset.metainfo.classes) == ["road", "sky", "car"]
        assert cfg[loader].dataset.data_prefix.seg_map_path == str(tmp_path / "labels")


def test_own_data_stands_in_the_written_config_of_detectron2(tmp_path, monkeypatch, own_data):
    out = tmp_path / "mine.yaml"
    values = ["MODEL.META_ARCHITECTURE=SemanticSegmentor", *own_data]
    assert write(monkeypatch, "detectron2/mask_rcnn_focalnet_sample.yaml", *values, "--out", out) == 0
    job = load_job(out)
    assert job.cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 3
    (name,) = job.train_names
    assert MetadataCatalog.get(name).stuff_classes == ["road", "sky", "car"]
