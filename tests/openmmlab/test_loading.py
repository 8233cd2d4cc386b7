"""Weights by every way that mmengine knows: nothing in them is run."""

from __future__ import annotations

import focalnet_backbone.openmmlab  # noqa: F401  # isort: skip  (lets mmdet be imported)
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import mmengine.fileio.backends
import mmengine.runner.checkpoint as mmengine_checkpoint
import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import BaseStorageBackend
from mmengine.model import BaseModule, initialize
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from torch import nn

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.command import test as test_tool
from focalnet_backbone.openmmlab import FocalNet
from focalnet_backbone.openmmlab.classifier import PREFIX
from focalnet_backbone.openmmlab.predict import load_model
from tests.checkpoints.hostile import HOSTILE, zip_with_attack
from tests.checkpoints.server import FileServer
from tests.openmmlab.conftest import SAMPLE_CONFIG


class Store(BaseStorageBackend):
    """Stands in for the client of a store, which is not installed: gives the bytes of a file here."""

    def get(self, filepath: str) -> bytes:
        return Path("/", filepath.split("://", 1)[1]).read_bytes()

    def get_text(self, filepath: str, encoding: str = "utf-8") -> str:
        return self.get(filepath).decode(encoding)


@pytest.fixture
def names(tmp_path, monkeypatch):
    """`names(path)`: a name by which mmengine can be told to read a file, for each of its schemes."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(mmengine.fileio.backends.backends, "petrel", Store)
    with FileServer().running() as server:

        def every_name(path: Path) -> dict[str, str]:
            server.files[f"/{path.name}"] = path.read_bytes()
            address = f"{server.address}/{path.name}"
            for tables in ("get_torchvision_models", "get_external_models", "get_mmcls_models"):
                monkeypatch.setattr(mmengine_checkpoint, tables, lambda: {"name": address})
            stored = str(path).lstrip("/")
            schemes = ("modelzoo", "torchvision", "open-mmlab", "openmmlab", "mmcls")
            return {
                "": str(path),
                "http://": address,
                "https://": address,
                r"(\S+\:)?s3://": f"s3://{stored}",
                r"(\S+\:)?petrel://": f"petrel://{stored}",
                "pavi://": f"pavi://{path}",
                **{f"{scheme}://": f"{scheme}://name" for scheme in schemes},
            }

        monkeypatch.setitem(sys.modules, "pavi", SimpleNamespace(modelcloud=ModelCloud))
        yield every_name


class ModelCloud:
    """Stands in for the client of pavi, which is not public."""

    @staticmethod
    def get(path: str) -> SimpleNamespace:
        def download(to: str) -> None:
            Path(to).write_bytes(Path(path).read_bytes())

        return SimpleNamespace(name=os.path.basename(path), download=download)


# The names of published detectors are schemes too; they lead to addresses, which are among these. So is a classifier's.
SCHEMES = sorted(name for name in CheckpointLoader._schemes if not name.endswith("$") and name != PREFIX)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_by_every_scheme_weights_are_read_and_code_is_refused(names, tmp_path, scheme):
    good = tmp_path / "good.pth"
    torch.save({"state_dict": {"backbone.x": torch.ones(2)}}, good)
    content = CheckpointLoader.load_checkpoint(names(good)[scheme], logger="silent")
    assert [x.tolist() for x in content["state_dict"].values()] == [[1, 1]]
    for kind, write in HOSTILE.items():
        path = tmp_path / f"{kind}.pth".replace(" ", "_")
        write(path, tmp_path / "code_was_run")
        with pytest.raises(CheckpointError, match=r"pickle that needs more than tensors"):
            CheckpointLoader.load_checkpoint(names(path)[scheme], logger="silent")
        assert not (tmp_path / "code_was_run").exists()


@pytest.mark.parametrize("kind", HOSTILE)
def test_the_scheme_of_classifiers_runs_no_code_either(tmp_path, kind):
    path = tmp_path / "weights.pth"
    HOSTILE[kind](path, tmp_path / "code_was_run")
    with pytest.raises(CheckpointError, match=r"pickle that needs more than tensors"):
        CheckpointLoader.load_checkpoint(f"{PREFIX}{path}", logger="silent")
    assert not (tmp_path / "code_was_run").exists()


class Head(BaseModule):
    def __init__(self, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.layer = nn.Linear(1, 1)


def resume(source: str, work_dir: Path) -> None:
    runner = Runner(Head(), str(work_dir), default_scope="mmengine", experiment_name=f"resume{work_dir.name}")
    runner.resume(source)


def pretrained(prefix: str | None) -> dict:
    return {"type": "Pretrained", "checkpoint": "", **({"prefix": prefix} if prefix else {})}


LOADING = {
    "load_checkpoint": lambda source, folder: load_checkpoint(Head(), source),
    "Runner.load_checkpoint": lambda source, folder: Runner(
        Head(), str(folder), default_scope="mmengine", experiment_name=f"load{folder.name}"
    ).load_checkpoint(source),
    "Runner.resume": resume,
    "PretrainedInit": lambda source, folder: initialize(Head(), {**pretrained(None), "checkpoint": source}),
    "PretrainedInit with a prefix": lambda source, folder: initialize(
        Head(), {**pretrained("x"), "checkpoint": source}
    ),
    "FocalNet's init_cfg": lambda source, folder: FocalNet(
        embed_dim=4, depths=[1], init_cfg={**pretrained(None), "checkpoint": source}
    ).init_weights(),
    "FocalNet's init_cfg with a prefix": lambda source, folder: FocalNet(
        embed_dim=4, depths=[1], init_cfg={**pretrained("backbone"), "checkpoint": source}
    ).init_weights(),
    "load_url": lambda source, folder: mmengine_checkpoint.load_url(source),
    "predict": lambda source, folder: load_model(Config.fromfile(SAMPLE_CONFIG), source, "cpu"),
}


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize("loading", LOADING)
def test_no_loading_function_runs_what_an_address_gives_it(names, tmp_path, loading, kind):
    path = tmp_path / "weights.pth"
    HOSTILE[kind](path, tmp_path / "code_was_run")
    with pytest.raises(CheckpointError, match="pickle that needs more than tensors"):
        LOADING[loading](names(path)["http://"], tmp_path)
    assert not (tmp_path / "code_was_run").exists()


def test_the_config_in_a_checkpoint_is_not_run_when_training_resumes(trained, run_training, tmp_path):
    program = f"import os\nos.mkdir({str(tmp_path / 'code_was_run')!r})"
    checkpoint = torch.load(trained.work_dir / "iter_2.pth", weights_only=False)
    checkpoint["meta"].update(config=program, cfg=program)
    checkpoint["message_hub"]["runtime_info"]["cfg"] = program
    torch.save(checkpoint, tmp_path / "iter_2.pth")
    assert run_training(tmp_path / "out", "--resume", str(tmp_path / "iter_2.pth")) == 0
    assert not (tmp_path / "code_was_run").exists()
    assert (tmp_path / "out" / "iter_4.pth").is_file()


@pytest.mark.parametrize("name", ["config.yaml", "config.py"])
def test_yaml_for_mmengine_is_data(tmp_path, name):
    call = f"!!python/object/apply:os.mkdir ['{tmp_path / 'code_was_run'}']"
    (tmp_path / "config.yaml").write_text(f"model: {call}\n")
    (tmp_path / "config.py").write_text('_base_ = "config.yaml"\n')
    with pytest.raises(Exception, match="could not determine a constructor"):
        Config.fromfile(tmp_path / name)
    assert not (tmp_path / "code_was_run").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"meta": None}, r"lacks meta\.epoch and meta\.iter"),
        ({"meta": {"epoch": 0, "iter": "2"}}, r"lacks meta\.epoch and meta\.iter"),
        ({"message_hub": [1]}, "lacks the message_hub"),
        ({"optimizer": 3}, "lacks a state of the optimizer"),
    ],
)
def test_a_checkpoint_that_training_cannot_go_on_from_is_named(trained, run_training, tmp_path, capsys, change, words):
    checkpoint = torch.load(trained.checkpoint, weights_only=False)
    torch.save({**checkpoint, **change}, tmp_path / "odd.pth")
    assert run_training(tmp_path / "out", "--resume", str(tmp_path / "odd.pth")) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert words.replace("\\", "") in last
    assert "odd.pth" in last


def damaged_head(trained: SimpleNamespace, path: Path) -> None:
    checkpoint = torch.load(trained.checkpoint, weights_only=False)
    checkpoint["state_dict"]["decode_head.conv_seg.weight"][0, 0] = float("nan")
    torch.save(checkpoint, path)


@pytest.mark.parametrize("tool", ["train.py load_from", "train.py --resume", "test.py"])
def test_a_head_with_nan_is_refused_by_name(trained, run_training, tiny_options, tmp_path, capsys, tool):
    path = tmp_path / "damaged.pth"
    damaged_head(trained, path)
    if tool == "test.py":
        arguments = [str(SAMPLE_CONFIG), str(path), "--work-dir", str(tmp_path / "out")]
        status = test_tool.main([*arguments, "--cfg-options", *tiny_options, "experiment_name=nan"])
    elif tool == "train.py --resume":
        status = run_training(tmp_path / "out", "--resume", str(path))
    else:
        status = run_training(tmp_path / "out", options=(f"load_from={path}",))
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == 2
    assert "decode_head.conv_seg.weight contain NaN" in last
    assert "damaged.pth" in last


def test_a_checkpoint_that_is_code_is_refused_before_training(run_training, tmp_path, capsys):
    zip_with_attack(tmp_path / "weights.pth", tmp_path / "code_was_run")
    assert run_training(tmp_path / "out", options=(f"load_from={tmp_path / 'weights.pth'}",)) == 2
    assert "weights.pth is a pickle" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "code_was_run").exists()
