"""A training that is stopped or killed at any moment: what it leaves, and that it goes on to the same end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from focalnet_backbone.command import train as train_tool
from focalnet_backbone.openmmlab import AtomicLocalBackend
from tests.openmmlab.conftest import SAMPLE_CONFIG
from tests.openmmlab.test_detection_tools import CONFIG
from tests.openmmlab.test_training import assert_same_run


@HOOKS.register_module()
class SignalHook(Hook):
    """Sends this process a signal in an iteration."""

    def __init__(self, name: str, after: int) -> None:
        self.signal = signal.Signals[name]
        self.after = after

    def after_train_iter(self, runner, *args, **kwargs):
        if runner.iter + 1 == self.after:
            os.kill(os.getpid(), self.signal)


def send(name: str, after: int, folder: Path, base: Path = SAMPLE_CONFIG) -> Path:
    """A config whose training gets a signal in an iteration."""
    path = folder / base.name
    hooks = [{"type": "SignalHook", "name": name, "after": after}]
    path.write_text(f"_base_ = [{str(base)!r}]\ncustom_hooks = {hooks}\n")
    return path


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.pth"))


@pytest.fixture
def expect_handlers():
    """Whatever stops a training, the signals' handlers are those of before."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.usefixtures("expect_handlers")
@pytest.mark.parametrize(
    ("name", "flags", "status", "saved"),
    [
        ("SIGTERM", (), 143, True),
        ("SIGTERM", ("--save-on-stop", "never"), 143, False),
        ("SIGINT", (), 130, False),
        ("SIGINT", ("--save-on-stop", "always"), 130, True),
    ],
)
def test_a_signal_ends_a_training_in_one_line(run_training, tmp_path, capfd, name, flags, status, saved):
    config, work = send(name, 3, tmp_path), tmp_path / "work"
    assert run_training(work, *flags, config=config, options=("default_hooks.checkpoint.interval=4",)) == status
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith(f"train.py: interrupted; {'saved after iteration 3, ' if saved else ''}go on with --resume")
    assert checkpoints(work) == (["iter_3.pth"] if saved else [])


def test_what_a_scheduler_ended_goes_on_to_the_same_end(trained, run_training, tmp_path):
    work = tmp_path / "work"
    assert run_training(work, config=send("SIGTERM", 3, tmp_path)) == 143
    assert checkpoints(work) == ["iter_2.pth", "iter_3.pth"]
    assert run_training(work, "--resume") == 0
    assert_same_run(work / "iter_4.pth", trained.checkpoint)


def test_an_epoch_that_was_ended_within_goes_on_to_the_same_end(sample_dataset, tmp_path):
    """Of two epochs of three iterations."""
    whole, part = tmp_path / "whole", tmp_path / "part"
    config = tmp_path / "detector.py"
    config.write_text(CONFIG.replace("ROOT", str(sample_dataset)))

    def train(work: Path, *flags: str, config: Path = config) -> int:
        return train_tool.main([str(config), "--work-dir", str(work), *flags, "--cfg-options", "randomness.seed=0"])

    assert train(whole) == 0
    (tmp_path / "stopped").mkdir()
    assert train(part, config=send("SIGTERM", 5, tmp_path / "stopped", config)) == 143
    assert checkpoints(part) == ["epoch_1.pth", "iter_5.pth"]
    assert train(part, "--resume") == 0
    # What was saved within the epoch has done its work.
    assert checkpoints(part) == ["epoch_1.pth", "epoch_2.pth"]
    assert_same_run(part / "epoch_2.pth", whole / "epoch_2.pth")


KEEP_ONE = ("default_hooks.checkpoint.max_keep_ckpts=1",)
KEEP_BEST = ("default_hooks.checkpoint.save_best=mIoU", "default_hooks.checkpoint.max_keep_ckpts=1")


@pytest.mark.parametrize("options", [KEEP_ONE, KEEP_BEST], ids=["max_keep_ckpts", "save_best"])
def test_a_whole_checkpoint_is_there_whenever_one_is_removed(run_training, tmp_path, monkeypatch, options):
    moments = watch_removals(monkeypatch, tmp_path)
    assert run_training(tmp_path, options=(*options, "train_cfg.max_iters=6")) == 0
    assert [left for name, left in moments if name.startswith("iter")] == [["iter_4.pth"], ["iter_6.pth"]]
    assert all(any(other[:4] == name[:4] for other in left) for name, left in moments)
    assert [name for name in checkpoints(tmp_path) if name.startswith("iter")] == ["iter_6.pth"]
    assert len([name for name in checkpoints(tmp_path) if name.startswith("best")]) == (options == KEEP_BEST)


def watch_removals(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[tuple[str, list[str]]]:
    """Each checkpoint that is removed, and the others that are there then, of the same kind."""
    moments = []
    remove: Callable = AtomicLocalBackend.remove

    def watched(self, path):
        name = Path(path).name
        moments.append((name, [other for other in checkpoints(folder) if other != name and other[:4] == name[:4]]))
        remove(self, path)

    monkeypatch.setattr(AtomicLocalBackend, "remove", watched)
    return moments


def test_what_a_killed_training_had_still_to_remove_is_removed_by_the_next(run_training, tmp_path, monkeypatch):
    def die(self, path):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(AtomicLocalBackend, "remove", die)
        with pytest.raises(RuntimeError, match="killed"):
            run_training(tmp_path, options=KEEP_ONE)
    assert checkpoints(tmp_path) == ["iter_2.pth", "iter_4.pth"]
    assert run_training(tmp_path, "--resume", options=(*KEEP_ONE, "train_cfg.max_iters=6")) == 0
    assert checkpoints(tmp_path) == ["iter_6.pth"]


def test_files_of_a_users_in_the_working_folder_are_not_replaced(run_training, tmp_path, capfd):
    config = tmp_path / "upernet_focalnet_sample.py"
    config.write_text("mine")
    assert run_training(tmp_path) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert str(config) in line
    assert "--force" in line
    assert config.read_text() == "mine"
    assert run_training(tmp_path, "--force", options=("train_cfg.max_iters=2",)) == 0
    assert config.read_text() != "mine"


def test_what_killed_trainings_left_unfinished_is_removed(run_training, tmp_path):
    (tmp_path / ".unfinished-0123.pth").write_bytes(b"half")
    assert run_training(tmp_path, options=("train_cfg.max_iters=2",)) == 0
    assert not list(tmp_path.glob(".unfinished-*"))
