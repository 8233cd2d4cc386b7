"""Files: training checkpoints of the frameworks are read, damaged and dangerous ones are refused with the reason."""

from __future__ import annotations

import argparse
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.solver import LRMultiplier, WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler
from mmengine.model import BaseModel
from mmengine.runner import Runner
from safetensors.torch import save_file
from torch import nn

from focalnet_backbone import FocalNet
from focalnet_backbone.checkpoints import CheckpointError, load_checkpoint
from focalnet_backbone.checkpoints.files import read_file
from tests.checkpoints.families import backbone, shrunk, transformers_model

SUFFIXES = [".safetensors", ".pth", ".pt", ".bin"]


class Segmenter(BaseModel):
    """The smallest model that mmengine's runner trains."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = backbone()
        self.decode_head = nn.Conv2d(32, 2, 1)

    def forward(self, inputs, data_samples=None, mode="loss"):
        return {"loss": self.decode_head(self.backbone(inputs)["stage4"]).mean()}


class Detector(nn.Module):
    """A backbone where detectron2's feature pyramids have it, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"bottom_up": backbone(), "fpn_lateral5": nn.Conv2d(32, 4, 1)})
        self.head = nn.Conv2d(32, 2, 1)

    def forward(self, images):
        return self.head(self.backbone["bottom_up"](images)["stage4"]).mean()


def assert_loads(source: Path, expected: dict) -> None:
    model = FocalNet(shrunk("focalnet_tiny_srf"), out_indices=[1, 2, 3, 4])
    load_checkpoint(model, source)
    for name, x in model.state_dict().items():
        assert torch.equal(x, expected[name]), name


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_of_file_is_read(tmp_path, suffix):
    state_dict = backbone().state_dict()
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state_dict, path)
    assert_loads(path, state_dict)
    assert_loads(str(path), state_dict)


def test_the_content_decides_what_a_file_is_not_its_name(tmp_path):
    save_file(backbone().state_dict(), tmp_path / "weights.pth")
    assert_loads(tmp_path / "weights.pth", backbone().state_dict())


def test_the_old_file_layout_of_pytorch_is_read(tmp_path):
    torch.save({"model": backbone().state_dict()}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert_loads(tmp_path / "old.pth", backbone().state_dict())


def test_a_training_checkpoint_of_mmengine_is_read(tmp_path):
    images = [{"inputs": torch.randn(3, 32, 32)} for _ in range(2)]
    runner = Runner(
        Segmenter(),
        str(tmp_path),
        train_dataloader={
            "dataset": images,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "collate_fn": {"type": "default_collate"},
        },
        train_cfg={"by_epoch": True, "max_epochs": 1},
        optim_wrapper={"optimizer": {"type": "AdamW", "lr": 1e-3}},
        param_scheduler={"type": "LinearLR"},
        custom_hooks=[{"type": "EMAHook"}],
        default_scope="mmengine",
        log_level="ERROR",
    )
    runner.train()
    checkpoint = torch.load(tmp_path / "epoch_1.pth", weights_only=False)
    assert checkpoint["message_hub"]["log_scalars"], "the log history is what makes such a file hard to read"
    expected = {name.removeprefix("backbone."): x for name, x in checkpoint["state_dict"].items()}
    assert_loads(tmp_path / "epoch_1.pth", expected)


def test_a_training_checkpoint_of_detectron2_is_read(tmp_path):
    model = Detector()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = WarmupParamScheduler(MultiStepParamScheduler([1, 0.1], milestones=[5, 10]), 0.1, 0.1)
    scheduler = LRMultiplier(optimizer, schedule, max_iter=10)
    model(torch.randn(1, 3, 32, 32)).backward()
    optimizer.step()
    scheduler.step()
    DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer, scheduler=scheduler).save("model", iteration=1)
    assert_loads(tmp_path / "model.pth", model.backbone["bottom_up"].state_dict())


def test_a_training_checkpoint_of_the_dino_release_is_read_without_its_command_line(tmp_path):
    model = backbone()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(1, 3, 32, 32))["stage4"].mean().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [11])
    checkpoint = {
        "model": {f"backbone.0.{name}": x for name, x in model.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": scheduler.state_dict(),
        "epoch": 11,
        "args": argparse.Namespace(lr=1e-4, output_dir="logs", inner=argparse.Namespace(betas=[0.9, 0.999])),
    }
    torch.save(checkpoint, tmp_path / "checkpoint.pth")
    assert_loads(tmp_path / "checkpoint.pth", model.state_dict())
    assert not isinstance(read_file(tmp_path / "checkpoint.pth")["args"], argparse.Namespace)


@pytest.mark.parametrize("shard_size", ["1GB", "20KB"])
def test_a_folder_that_transformers_saved_is_read(tmp_path, shard_size):
    theirs = transformers_model(shrunk("focalnet_tiny_srf"))
    theirs.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard_size == "20KB")
    model = backbone()
    report = load_checkpoint(model, tmp_path)
    assert report.format == "transformers"
    assert torch.equal(model.layers[3].blocks[0].mlp.fc2.bias, theirs.focalnet.encoder.stages[3].layers[0].mlp.fc2.bias)


def test_a_folder_with_one_weight_file_of_any_name_is_read(tmp_path):
    torch.save(backbone().state_dict(), tmp_path / "epoch_12.pth")
    assert_loads(tmp_path, backbone().state_dict())


def test_a_missing_shard_is_named(tmp_path):
    transformers_model(shrunk("focalnet_tiny_srf")).save_pretrained(tmp_path, max_shard_size="20KB")
    shard = sorted(tmp_path.glob("model-00002-*"))[0]
    shard.unlink()
    with pytest.raises(CheckpointError, match=shard.name):
        load_checkpoint(backbone(), tmp_path)


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ('{"weight_map": {"x": "../secret.safetensors"}}', "'../secret.safetensors', which is not a file beside it"),
        ('{"weight_map": {"x": 3}}', "3, which is not a file beside it"),
        ('{"weights": {}}', "is not an index"),
        ("not json", "is not an index"),
    ],
)
def test_an_index_that_is_none_or_points_elsewhere_is_refused(tmp_path, index, words):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(backbone(), tmp_path)


def test_a_folder_without_weights_or_with_several_is_an_error_that_lists_them(tmp_path):
    with pytest.raises(CheckpointError, match="no weight file"):
        load_checkpoint(backbone(), tmp_path)
    for name in ("a.pth", "b.pth"):
        torch.save({}, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"several weight files.*a\.pth, b\.pth"):
        load_checkpoint(backbone(), tmp_path)


def test_a_folder_of_another_model_is_refused(tmp_path):
    save_file(backbone().state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "swin"}))
    with pytest.raises(CheckpointError, match="not the config of a FocalNet"):
        load_checkpoint(backbone(), tmp_path)


@pytest.mark.parametrize("config", [{"architecture": "focalnet_tiny_srf", "num_classes": 1000}, {"lr": 0.1}])
def test_a_config_that_is_not_of_transformers_says_nothing_about_the_weights(tmp_path, config):
    source = backbone(use_post_layernorm=True).state_dict()
    save_file(source, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert not load_checkpoint(backbone(use_post_layernorm=True), tmp_path).differs


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    ("suffix", "damage", "words"),
    [
        (".pth", cut, "cut-off or damaged PyTorch file"),
        (".safetensors", cut, "cut-off or damaged safetensors file"),
        (".pth", lambda content: b"", r"is empty \(0 bytes\)"),
        (".safetensors", lambda content: b"", r"is empty \(0 bytes\)"),
        (".pth", lambda content: b"\n<!DOCTYPE html><html><title>Not found", "is a web page"),
        (".safetensors", lambda content: b"<html><body>403", "is a web page"),
        (".bin", lambda content: b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
        (".pth", lambda content: bytes(range(256)) * 8, "not a weight file, or a damaged one"),
        (".pth", lambda content: b"\x00" * 4096, "not a weight file, or a damaged one"),
        (
            ".pth",
            lambda content: b'{"error": "Not found"}',
            r"""not a weight file, or .*; it starts with b'{"error": "Not f'""",
        ),
    ],
)
def test_a_damaged_file_is_an_error_that_says_what_it_is(tmp_path, suffix, damage, words):
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(backbone().state_dict(), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=words) as error:
        load_checkpoint(backbone(), path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


class Attack:
    """Pickles into a call that would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "attacked"))


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))])
def test_a_pickle_that_runs_code_is_refused_with_the_way_out_and_runs_nothing(tmp_path, save):
    save({"model": backbone().state_dict(), "extra": Attack(tmp_path / "attacked")}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(backbone(), tmp_path / "weights.pth")
    assert not (tmp_path / "attacked").exists()
    assert "weights.pth" in str(error.value)


def test_a_pickle_of_numpy_arrays_is_refused_with_the_way_out(tmp_path):
    arrays = {name: x.numpy() for name, x in backbone().state_dict().items()}
    with (tmp_path / "weights.pkl").open("wb") as file:
        pickle.dump({"model": arrays, "__author__": "somebody", "matching_heuristics": True}, file)
    with pytest.raises(CheckpointError, match=r"weights\.pkl is a pickle.*save its state dict"):
        load_checkpoint(backbone(), tmp_path / "weights.pkl")


def test_a_pickled_model_is_refused_with_what_it_asks_for_and_the_way_out(tmp_path):
    torch.save(backbone(), tmp_path / "model.pth")
    with pytest.raises(
        CheckpointError, match=r"asks for focalnet_backbone\.network\.backbone\.FocalNet.*save its state dict"
    ):
        load_checkpoint(backbone(), tmp_path / "model.pth")


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*TorchScript archive:UserWarning")
def test_a_torchscript_program_is_called_one(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"model\.pt is a TorchScript program"):
        load_checkpoint(backbone(), tmp_path / "model.pt")


class Getattr:
    """An object that is pickled as a call of `getattr`."""

    def __reduce__(self):
        return (getattr, ("text", "upper"))


def test_what_a_file_needs_for_a_log_history_calls_no_real_function(tmp_path):
    torch.save({"model": backbone().state_dict(), "meta": Getattr()}, tmp_path / "weights.pth")
    assert_loads(tmp_path / "weights.pth", backbone().state_dict())


def test_log_histories_are_read_where_their_real_classes_are_allowed(tmp_path):
    def refuse(*args):
        raise AssertionError("a real class was called")

    names = ["builtins.getattr", "numpy.ndarray", "numpy.dtype", "numpy._core.multiarray._reconstruct"]
    values = {"array": np.ones(2), "function": Getattr()}
    torch.save({"model": backbone().state_dict(), "meta": values}, tmp_path / "weights.pth")
    with torch.serialization.safe_globals([(refuse, name) for name in names]):
        assert_loads(tmp_path / "weights.pth", backbone().state_dict())
        assert sum(isinstance(entry, tuple) for entry in torch.serialization.get_safe_globals()) >= len(names)


def test_reading_leaves_pytorchs_list_of_safe_types_as_it_was(tmp_path):
    torch.save(backbone().state_dict(), tmp_path / "weights.pth")
    before = set(torch.serialization.get_safe_globals())
    load_checkpoint(backbone(), tmp_path / "weights.pth")
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("source", ["weights.pth", "./weights", "folder/weights.safetensors"])
def test_a_path_where_nothing_is_is_a_file_not_found_error(source):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_checkpoint(backbone(), source)
