"""Training by the tools: what it writes, how it resumes, what it says of mistakes."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from focalnet_backbone.command import test as test_tool
from focalnet_backbone.command import train as train_tool
from focalnet_backbone.openmmlab import training
from focalnet_backbone.openmmlab.resume import latest_checkpoint
from focalnet_backbone.openmmlab.training import check_channels
from tests.openmmlab.conftest import ROOT, SAMPLE_CONFIG

KILLER = """
import os, signal
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class KillHook(Hook):
    priority = "LOWEST"

    def after_train_iter(self, runner, *args, **kwargs):
        if runner.iter + 1 == int(os.environ["KILL_AFTER"]):
            os.kill(os.getpid(), signal.SIGKILL)
"""


def environment(**variables: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "FOCALNET_VENV": sys.prefix, "OMP_NUM_THREADS": "1", **variables}


def losses(checkpoint: Path) -> list[float]:
    """The loss of each iteration that the run of a checkpoint has done."""
    history = torch.load(checkpoint, weights_only=True)["message_hub"]["log_scalars"]["train/loss"]
    return history.data[0].tolist()


def assert_same_run(ours: Path, theirs: Path) -> None:
    assert losses(ours) == losses(theirs)
    weights, expected = (torch.load(path, weights_only=True)["state_dict"] for path in (ours, theirs))
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


def test_training_writes_checkpoints_that_a_safe_load_reads(trained):
    checkpoint = torch.load(trained.checkpoint, weights_only=True)
    assert checkpoint["meta"]["iter"] == 4
    assert checkpoint["meta"]["dataset_meta"]["classes"][0] == "ball"
    assert len(losses(trained.checkpoint)) == 4
    assert not [path for path in trained.work_dir.iterdir() if "unfinished" in path.name]


def test_a_killed_run_resumes_to_the_same_losses_and_weights(
    trained, run_training, tiny_options, tmp_path, warm_environment
):
    (tmp_path / "killer.py").write_text(KILLER)
    config = tmp_path / "killed.py"
    config.write_text(
        f"_base_ = [{str(SAMPLE_CONFIG)!r}]\n"
        "custom_imports = dict(imports=['focalnet_backbone.openmmlab', 'killer'])\n"
        "custom_hooks = [dict(type='KillHook')]\n"
    )
    work_dir = tmp_path / "work"
    python = str(warm_environment / "bin" / "python")
    command = [python, str(ROOT / "tools" / "train.py"), str(config), "--work-dir", str(work_dir)]
    # Iteration 3 is lost: the checkpoint is that of iteration 2, with validation after it.
    variables = environment(KILL_AFTER="3")
    variables["PYTHONPATH"] += os.pathsep + str(tmp_path)
    killed = subprocess.run(
        [*command, "--cfg-options", *tiny_options], cwd=tmp_path, env=variables, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in work_dir.glob("*.pth")] == ["iter_2.pth"]

    assert run_training(work_dir, "--resume") == 0

    assert_same_run(work_dir / "iter_4.pth", trained.checkpoint)


def test_resume_goes_on_where_another_seed_was_drawn(run_training, tmp_path):
    unseeded = ("randomness.seed=None",)
    assert run_training(tmp_path / "whole", options=unseeded) == 0
    (tmp_path / "part").mkdir()
    shutil.copy(tmp_path / "whole" / "iter_2.pth", tmp_path / "part")

    assert run_training(tmp_path / "part", "--resume", options=unseeded) == 0

    assert_same_run(tmp_path / "part" / "iter_4.pth", tmp_path / "whole" / "iter_4.pth")


def test_resume_without_a_checkpoint_starts_afresh(trained, run_training, tmp_path, capfd):
    assert run_training(tmp_path, "--resume") == 0
    assert f"see it: focalnet report {tmp_path}\n" in capfd.readouterr().out
    assert_same_run(tmp_path / "iter_4.pth", trained.checkpoint)


def test_a_resumed_training_takes_new_settings_and_says_so(trained, run_training, tmp_path, capfd):
    """The rates are those of a training that had the new settings from its beginning."""
    changed = ("optim_wrapper.optimizer.lr=1e-3", "optim_wrapper.optimizer.weight_decay=0.5", "train_cfg.max_iters=5")
    changed += (
        "param_scheduler.0.end=3",
        "param_scheduler.1.begin=3",
        "default_hooks.checkpoint.interval=1",
        "default_hooks.checkpoint.max_keep_ckpts=5",
    )
    assert run_training(tmp_path / "whole", options=changed) == 0
    (tmp_path / "part").mkdir()
    shutil.copy(trained.work_dir / "iter_2.pth", tmp_path / "part")
    capfd.readouterr()
    assert run_training(tmp_path / "part", "--resume", options=changed) == 0
    told = " ".join(capfd.readouterr())
    assert "resumed with lr 0.001, where the training had" in told
    assert "resumed with weight_decay 0.5, where the training had" in told
    assert "resumed with end 3 of the schedule of lr, where the training had 100" in told
    whole, part = (torch.load(tmp_path / name / "iter_3.pth", weights_only=True) for name in ("whole", "part"))
    for ours, theirs in zip(part["optimizer"]["param_groups"], whole["optimizer"]["param_groups"], strict=True):
        assert ours == theirs
    for ours, theirs in zip(part["param_schedulers"], whole["param_schedulers"], strict=True):
        assert ours == theirs


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("train_dataloader.batch_size=3", "2 images an iteration, which cannot change to 3"),
        ("optim_wrapper.optimizer.type=SGD", "another optimizer, which cannot change to SGD"),
        ("train_cfg.max_iters=1", "has done 2 iterations, of 1 asked for"),
        ("model.auxiliary_head=None", "other parameters"),
    ],
)
def test_what_cannot_change_in_a_resumed_training_is_refused(trained, run_training, tmp_path, capfd, option, message):
    shutil.copy(trained.work_dir / "iter_2.pth", tmp_path)
    assert run_training(tmp_path, "--resume", options=(option,)) == 2
    assert message in capfd.readouterr().err.splitlines()[-1]


def test_each_training_of_a_process_logs_into_its_own_folder(trained, run_training, tmp_path):
    assert run_training(tmp_path) == 0
    assert len(list(tmp_path.glob("*/vis_data/scalars.json"))) == 1


def test_the_last_checkpoint_is_the_named_one_or_else_the_newest_whole_one(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for age, name in enumerate([".unfinished-1-iter_6.pth", "best_mIoU_iter_2.pth", "iter_2.pth", "iter_4.pth"]):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    assert latest_checkpoint(tmp_path).name == "iter_2.pth"
    # The folder was moved since.
    (tmp_path / "last_checkpoint").write_text("/elsewhere/iter_4.pth")
    assert latest_checkpoint(tmp_path) == tmp_path / "iter_4.pth"
    # Killed while the note was written.
    (tmp_path / "last_checkpoint").write_text("")
    assert latest_checkpoint(tmp_path).name == "iter_2.pth"


def test_two_processes_train_and_test_on_the_cpu(tiny_options, tmp_path, capfd, warm_environment):
    python = str(warm_environment / "bin" / "python")
    variables = environment(FOCALNET_VENV=str(warm_environment), PYTHON_EXEC=python)  # That of torchrun's processes.
    options = ["--cfg-options", *tiny_options, "model.decode_head.norm_cfg.type=SyncBN", "train_cfg.max_iters=2"]
    work = ["--work-dir", str(tmp_path / "work")]
    train = ["bash", str(ROOT / "tools" / "dist_train.sh"), str(SAMPLE_CONFIG), "2", *work, *options]
    subprocess.run(train, cwd=tmp_path, env=variables, check=True)
    checkpoint = tmp_path / "work" / "iter_2.pth"
    test = ["bash", str(ROOT / "tools" / "dist_test.sh"), str(SAMPLE_CONFIG), str(checkpoint), "2", *work, *options]
    subprocess.run(test, cwd=tmp_path, env=variables, check=True)
    assert "mIoU" in "".join(capfd.readouterr())


def test_workers_end_with_their_training(run_training, tmp_path):
    before = set(multiprocessing.active_children())
    lasting = [
        f"{name}_dataloader.{key}" for name in ("train", "val") for key in ("num_workers=1", "persistent_workers=1")
    ]
    assert run_training(tmp_path, options=tuple(lasting)) == 0
    assert set(multiprocessing.active_children()) <= before


def test_test_tool_prints_the_iou_of_each_class_and_saves_predictions(trained, tiny_options, tmp_path, capfd):
    arguments = [str(SAMPLE_CONFIG), str(trained.checkpoint), "--work-dir", str(tmp_path)]
    flags = ["--out", str(tmp_path / "labels"), "--show-dir", str(tmp_path / "painted")]
    options = [*tiny_options, "experiment_name=plain"]

    assert test_tool.main([*arguments, *flags, "--cfg-options", *options]) == 0

    printed = "".join(capfd.readouterr())
    assert "mIoU" in printed
    assert all(name in printed for name in ("ball", "photograph", "brick"))
    labels = sorted((tmp_path / "labels").iterdir())
    assert [path.name for path in labels] == ["00001.png", "00002.png", "00003.png"]
    assert np.asarray(Image.open(labels[0])).shape == (64, 64)
    assert len(list(tmp_path.rglob("painted/**/*.png"))) == 3

    before = labels[0].read_bytes()
    for flag in (flags[:2], flags[2:]):
        assert "has files in it" in fail(capfd, [*arguments, *flag, "--cfg-options", *options], "test")
    assert labels[0].read_bytes() == before


def test_test_tool_merges_augmented_predictions(trained, tiny_options, tmp_path, capfd):
    arguments = [str(SAMPLE_CONFIG), str(trained.checkpoint), "--work-dir", str(tmp_path), "--tta"]
    assert test_tool.main([*arguments, "--cfg-options", *tiny_options, "experiment_name=tta"]) == 0
    assert "mIoU" in "".join(capfd.readouterr())


def fail(capfd: pytest.CaptureFixture, arguments: list[str], tool: str = "train") -> str:
    """The error line of a command line that has to fail."""
    capfd.readouterr()
    assert {"train": train_tool, "test": test_tool}[tool].main(arguments) == 2
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1].startswith(f"{tool}.py: ")
    assert not any("Traceback" in line for line in lines)
    return lines[-1]


def test_a_missing_dataset_is_one_line_with_the_expected_layout(capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mmengine.runner.Runner.from_cfg", lambda cfg: pytest.fail("a model was built"))
    config = ROOT / "configs" / "mmseg" / "upernet_focalnet_tiny_srf_160k_ade20k_512x512.py"
    line = fail(capfd, [str(config)])
    assert "data/ade/ADEChallengeData2016" in line
    for part in ("images/training", "annotations/training", "images/validation", "annotations/validation"):
        assert part in line
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def spoilt(sample_dataset, tiny_options, tmp_path) -> SimpleNamespace:
    """A copy of the dataset to damage: its `annotations` and `images` for training, and `options` that use it."""
    root = Path(shutil.copytree(sample_dataset, tmp_path / "data"))
    options = ["--cfg-options", *(option.replace(str(sample_dataset), str(root)) for option in tiny_options)]
    folders = {name: root / name / "training" for name in ("annotations", "images")}
    return SimpleNamespace(**folders, options=[*options, f"work_dir={tmp_path / 'work'}"])


def test_an_image_without_label_is_named(capfd, spoilt):
    (spoilt.annotations / "00002.png").unlink()
    line = fail(capfd, [str(SAMPLE_CONFIG), *spoilt.options])
    assert "images/training/00002.jpg has no label" in line


def test_a_folder_without_images_is_named(capfd, spoilt):
    for image in spoilt.images.iterdir():
        image.unlink()
    assert "no image in" in fail(capfd, [str(SAMPLE_CONFIG), *spoilt.options])


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.full((64, 64), 77), "00001.png (value 76 after reduce_zero_label); there are 8 classes, 0 to 7"),
        (np.full((32, 64), 1), "00001.png (64x32, its photo 64x64); "),
    ],
)
def test_a_label_that_does_not_go_with_its_image_or_classes_is_named(capfd, spoilt, label, message):
    Image.fromarray(label.astype(np.uint8)).save(spoilt.annotations / "00001.png")
    assert message in fail(capfd, [str(SAMPLE_CONFIG), *spoilt.options])


def test_a_damaged_image_is_named(capfd, spoilt):
    (spoilt.images / "00003.jpg").write_bytes(b"text")
    line = fail(capfd, [str(SAMPLE_CONFIG), *spoilt.options])
    assert "1 photo cannot be read" in line
    assert "images/training/00003.jpg" in line


SCHEDULE = """
_base_ = [{base!r}]
param_scheduler = [dict(type="LinearLR", start_factor=0.5, by_epoch=False, end=9), dict({schedule})]
"""


def test_a_schedule_that_begins_after_the_last_iteration_does_nothing(run_training, tmp_path, capfd):
    config = tmp_path / "short.py"
    schedule = "type='CosineAnnealingLR', by_epoch=False, begin=9"
    config.write_text(SCHEDULE.format(base=str(SAMPLE_CONFIG), schedule=schedule))
    assert run_training(tmp_path / "work", config=config) == 0
    assert "begins after iteration 9, but the training ends after iteration 4" in capfd.readouterr().out
    checkpoint = torch.load(tmp_path / "work" / "iter_4.pth", weights_only=True)
    (group, *_) = checkpoint["optimizer"]["param_groups"]
    assert group["lr"] == pytest.approx(group["initial_lr"] * (0.5 + 0.5 * 4 / 8))


@pytest.mark.parametrize(
    ("schedule", "message"),
    [("type='PolyLR', begin=3, end=3", "end should be larger than begin"), ("type='StepLR'", "step_size")],
)
def test_a_schedule_that_cannot_be_built_is_named_before_the_training(tmp_path, tiny_options, capfd, schedule, message):
    config = tmp_path / "wrong.py"
    config.write_text(SCHEDULE.format(base=str(SAMPLE_CONFIG), schedule=schedule))
    line = fail(capfd, [str(config), "--work-dir", str(tmp_path / "work"), "--cfg-options", *tiny_options])
    assert line.startswith("train.py: param_scheduler: ")
    assert message in line


@pytest.mark.parametrize("damage", [lambda png: b"text", lambda png: png[:99]])
def test_a_damaged_label_is_named(capfd, spoilt, damage):
    label = spoilt.annotations / "00003.png"
    label.write_bytes(damage(label.read_bytes()))
    line = fail(capfd, [str(SAMPLE_CONFIG), *spoilt.options])
    assert "1 label cannot be read" in line
    assert "annotations/training/00003.png" in line


@pytest.mark.parametrize("workers", [0, 1])
def test_a_label_that_is_damaged_while_training_goes_on_is_named(capfd, spoilt, workers, monkeypatch):
    build = training.build

    def build_then_damage(cfg):
        runner = build(cfg)
        for label in spoilt.annotations.iterdir():
            label.write_bytes(b"text")
        return runner

    monkeypatch.setattr(training, "build", build_then_damage)
    line = fail(capfd, [str(SAMPLE_CONFIG), *spoilt.options, f"train_dataloader.num_workers={workers}"])
    assert re.search(r"annotations/training/0000\d.png is no photo: ", line)


def test_wrong_configs_and_values_are_one_line(capfd, tiny_options, tmp_path, monkeypatch):
    def train(*options: str, config: object = SAMPLE_CONFIG) -> str:
        return fail(capfd, [str(config), "--cfg-options", *tiny_options, f"work_dir={tmp_path}", *options])

    broken = tmp_path / "broken.py"
    broken.write_text("model = dict(")
    assert "broken.py is no valid config" in train(config=broken)
    broken.write_text("a = 1 / 0")
    assert "broken.py is no valid config: ZeroDivisionError" in train(config=broken)
    broken.write_text("a = 1")
    assert "broken.py has no optim_wrapper" in train(config=broken)
    assert "no config file nowhere.py" in train(config="nowhere.py")
    assert "embed_dim" in train("model.backbone.embed_dim=0")
    assert "model.auxiliary_head.num_classes is 5, but the data has 8" in train("model.auxiliary_head.num_classes=5")
    assert "model.auxiliary_head.in_channels is [64]" in train("model.auxiliary_head.in_channels=64")
    assert "'iters'" in train("train_cfg.iters=4")
    assert "Blur is not in" in train("train_dataloader.dataset.pipeline.2.type=Blur")
    decay = "optim_wrapper.constructor=LayerDecayOptimWrapperConstructor"
    assert "decay_rate" in train(decay)
    assert "nowhere.pth" in train(
        "model.backbone.init_cfg.type=Pretrained", "model.backbone.init_cfg.checkpoint=nowhere.pth"
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--amp needs a GPU" in fail(capfd, [str(SAMPLE_CONFIG), "--amp", "--cfg-options", *tiny_options])
    for option in ("lr", "a=[1,2", "hooks=[dict(a=1,b=2)]"):
        with pytest.raises(SystemExit):
            train_tool.main([str(SAMPLE_CONFIG), "--cfg-options", option])
        line = capfd.readouterr().err.splitlines()[-1]
        assert re.search(r"--cfg-options .*, got ", line)
        assert line.endswith(option.partition("=")[2] or option)


def test_channels_that_do_not_fit_the_backbone_are_refused():
    backbone = {"type": "FocalNet", "embed_dim": 4, "depths": [1, 1, 1], "out_indices": [0, 1, 2]}
    fitting = [
        {"neck": {"type": "FPN", "in_channels": [4, 8, 16]}},
        {"neck": [{"type": "FPN", "in_channels": (4, 8, 16)}, {"type": "DyHead", "in_channels": 256}]},
        {"neck": {"type": "YOLOV3Neck", "in_channels": [16, 8, 4]}},
        {"neck": {"type": "Other"}, "decode_head": {"in_channels": 256}},
        {
            "decode_head": {"in_channels": [8, 16], "in_index": [1, 2]},
            "auxiliary_head": {"in_channels": 8, "in_index": 1},
        },
        {"decode_head": [{"in_channels": 16}, {"in_channels": 4, "in_index": 0}, {}]},
        {"backbone": {"type": "ResNet"}, "decode_head": {"in_channels": 2048}},
        {"backbone": None, "decode_head": {"in_channels": 2048}},
    ]
    for parts in fitting:
        check_channels({"backbone": backbone, **parts})
    refused = {
        "model.neck.in_channels is [4, 8], but model.backbone gives [4, 8, 16]": {"neck": {"in_channels": [4, 8]}},
        "model.decode_head.in_channels is [8], but model.backbone gives [16]": {"decode_head": {"in_channels": 8}},
        "model.decode_head.in_channels is [4, 8], but model.backbone gives [8, 16]": {
            "decode_head": {"in_channels": [4, 8], "in_index": [1, 2]}
        },
        "model.auxiliary_head.in_index is [3], but model.backbone gives 3 maps": {
            "auxiliary_head": {"in_channels": 16, "in_index": 3}
        },
    }
    for message, parts in refused.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            check_channels({"backbone": {**backbone, "type": "mmseg.FocalNet"}, **parts})


def test_wrong_checkpoints_and_flags_are_one_line(capfd, trained, tiny_options, tmp_path):
    config = str(SAMPLE_CONFIG)
    options = ["--cfg-options", *tiny_options, f"work_dir={tmp_path}"]
    checkpoint = str(trained.checkpoint)
    truncated = tmp_path / "truncated.pth"
    truncated.write_bytes(trained.checkpoint.read_bytes()[:1000])

    assert "truncated.pth" in fail(capfd, [config, "--resume", str(truncated), *options])
    assert "truncated.pth" in fail(capfd, [config, str(truncated), *options], "test")
    assert "nowhere.pth" in fail(capfd, [config, "nowhere.pth", *options], "test")
    assert "does not fit" in fail(capfd, [config, checkpoint, *options, "model.backbone.embed_dim=8"], "test")
    assert "is a file" in fail(capfd, [config, checkpoint, "--out", checkpoint, *options], "test")
    assert "no tta_model" in fail(capfd, [config, checkpoint, "--tta", *options, "tta_model=None"], "test")


def test_any_config_gets_exact_resume_and_whole_checkpoints(trained):
    cfg = Config.fromfile(next(trained.work_dir.glob("*.py")))
    assert cfg.custom_hooks == [{"type": "ExactResumeHook"}, {"type": "StopHook", "save_on": ("SIGTERM",)}]
    assert cfg.default_hooks.checkpoint.type == "LastingCheckpointHook"
    assert cfg.default_hooks.checkpoint.backend_args == {"backend": "atomic_local"}
    assert cfg.default_hooks.checkpoint.interval == 2
