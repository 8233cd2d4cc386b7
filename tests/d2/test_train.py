"""`tools/train_net.py`: training, its interruption and resumption, and evaluation."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from detectron2.engine import SimpleTrainer
from detectron2.modeling import build_model
from detectron2.modeling.roi_heads import mask_head

from focalnet_backbone.command import report, train_net
from focalnet_backbone.command.train_net import job_from_arguments, make_parser, run_command
from focalnet_backbone.data_check.report import Report
from focalnet_backbone.detectron2 import FocalNetCheckpointer
from focalnet_backbone.detectron2 import train as train_module
from focalnet_backbone.detectron2.jobs import load_job
from focalnet_backbone.detectron2.loader import SeededDataset
from focalnet_backbone.detectron2.predict import Detectron2Predictor
from focalnet_backbone.features.images import load_image
from tests.d2.conftest import TINY, dataset_arguments, own_logging

TOOL = Path(__file__).parents[2] / "tools" / "train_net.py"
LAZY = TINY.with_name("tiny_lazy.py")


def arguments(sample: Path, out: Path, *more: str, splits: tuple[str, ...] = ("train", "val")) -> list[str]:
    flags = [argument for argument in more if argument.startswith("--")]
    overrides = [argument for argument in more if not argument.startswith("--")]
    command = ["--config-file", str(TINY), *dataset_arguments(sample, *splits), *flags]
    return [*command, "OUTPUT_DIR", str(out), *overrides]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"]


def same_training(one: Path, other: Path) -> bool:
    """Whether two trainings ended with the same weights and the same state of the optimizer, bit for bit."""
    one, other = (torch.load(path / "model_final.pth", weights_only=True) for path in (one, other))
    tensors = [
        [*checkpoint["model"].values()]
        + [t for state in checkpoint["trainer"]["optimizer"]["state"].values() for t in state.values()]
        for checkpoint in (one, other)
    ]
    return all(torch.equal(a, b) for a, b in zip(*tensors, strict=True))


@pytest.fixture(scope="module")
def trained(sample, tmp_path_factory) -> Path:
    """The output of an uninterrupted training of six iterations, with an evaluation after two, four and six."""
    out = tmp_path_factory.mktemp("trained") / "out"
    with own_logging():
        run_command(arguments(sample, out, "TEST.EVAL_PERIOD", "2"))
    return out


@pytest.fixture
def record(monkeypatch) -> dict[str, list]:
    """Losses of each iteration, and the images that were loaded."""
    seen = {"losses": [], "images": []}
    write_metrics, load = SimpleTrainer._write_metrics, SeededDataset.__getitem__

    def record_losses(self, losses, *args, **kwargs):
        seen["losses"].append((self.iter, {name: loss.item() for name, loss in losses.items()}))
        return write_metrics(self, losses, *args, **kwargs)

    def record_image(self, key):
        seen["images"].append(key)
        return load(self, key)

    monkeypatch.setattr(SimpleTrainer, "_write_metrics", record_losses)
    monkeypatch.setattr(SeededDataset, "__getitem__", record_image)
    return seen


def test_a_training_leaves_checkpoints_the_best_one_logs_and_its_config(trained):
    names = {path.name for path in trained.iterdir()}
    assert {f"model_{i:07d}.pth" for i in (1, 3, 5)} <= names
    assert {"model_final.pth", "model_best.pth", "last_checkpoint", "metrics.json", "config.yaml", "log.txt"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert not any("unfinished" in name for name in names)
    assert (trained / "last_checkpoint").read_text() == "model_final.pth"
    last = json.loads((trained / "metrics.json").read_text().splitlines()[-1])
    assert {"bbox/AP", "segm/AP"} <= set(last)
    log = (trained / "log.txt").read_text()
    assert "eta: " in log
    assert "box AP" in log
    assert "mask AP" in log


def test_a_run_that_was_interrupted_goes_on_with_the_same_images_and_losses(sample, tmp_path, record, monkeypatch):
    run_command(arguments(sample, tmp_path / "whole", splits=("train",)))
    whole = {name: list(values) for name, values in record.items()}

    class Outage(Exception):
        pass

    run_step = SimpleTrainer.run_step

    def fail_at_the_fourth(self):
        if self.iter == 3:
            raise Outage
        run_step(self)

    record["losses"].clear()
    record["images"].clear()
    monkeypatch.setattr(SimpleTrainer, "run_step", fail_at_the_fourth)
    with pytest.raises(Outage):
        run_command(arguments(sample, tmp_path / "cut", splits=("train",)))
    assert record["losses"] == whole["losses"][:3]
    monkeypatch.setattr(SimpleTrainer, "run_step", run_step)
    record["losses"].clear()
    record["images"].clear()
    run_command(arguments(sample, tmp_path / "cut", "--resume", splits=("train",)))
    assert len(whole["images"]) == 12
    assert record["losses"] == whole["losses"][2:]
    assert record["images"] == whole["images"][4:]
    assert same_training(tmp_path / "whole", tmp_path / "cut")


IN_AN_ITERATION = """
run_step = SimpleTrainer.run_step
def run_step_or_die(self):
    if self.iter == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    run_step(self)
SimpleTrainer.run_step = run_step_or_die
"""
IN_A_CHECKPOINT = """
save = torch.save
def save_or_die(data, path):
    if data["iteration"] == 3:
        path.write_bytes(b"half a checkpoint")
        os.kill(os.getpid(), signal.SIGKILL)
    save(data, path)
torch.save = save_or_die
"""


@pytest.mark.parametrize("moment", [IN_AN_ITERATION, IN_A_CHECKPOINT], ids=["iteration", "checkpoint"])
def test_a_run_that_was_killed_goes_on_to_the_same_end(sample, tmp_path, trained, moment, warm_environment):
    program = "import os, signal, sys, torch\nfrom detectron2.engine import SimpleTrainer\n" + moment
    program += "from focalnet_backbone.command.train_net import run_command\nrun_command(sys.argv[1:])"
    out = tmp_path / "out"
    python = warm_environment / "bin" / "python"
    killed = subprocess.run([python, "-c", program, *arguments(sample, out, splits=("train",))])
    assert killed.returncode == -signal.SIGKILL
    assert not (out / "model_final.pth").exists()
    run_command(arguments(sample, out, "--resume", splits=("train",)))
    assert same_training(out, trained)
    assert not list(out.glob(".unfinished*"))


def test_a_run_that_was_killed_before_its_final_checkpoint_gets_it(sample, tmp_path, trained):
    out = shutil.copytree(trained, tmp_path / "out")
    (out / "model_final.pth").unlink()
    (out / "last_checkpoint").write_text("model_0000005.pth")
    run_command(arguments(sample, out, "--resume", splits=("train",)))
    assert same_training(out, trained)
    assert (out / "last_checkpoint").read_text() == "model_final.pth"


SIGTERM_IN_AN_ITERATION = IN_AN_ITERATION.replace("SIGKILL", "SIGTERM")


def test_a_run_that_a_scheduler_ends_leaves_a_checkpoint_and_goes_on_to_the_same_end(
    sample, tmp_path, trained, capfd, warm_environment
):
    program = "import os, signal, sys\nfrom detectron2.engine import SimpleTrainer\n" + SIGTERM_IN_AN_ITERATION
    program += "from focalnet_backbone.command.train_net import run_command\nrun_command(sys.argv[1:])"
    out = tmp_path / "out"
    command = [warm_environment / "bin" / "python", "-c", program, *arguments(sample, out, splits=("train",))]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("train_net.py:")]
    assert "saved after iteration 4, with --resume it goes on" in line
    assert (out / "last_checkpoint").read_text() == "model_0000004.pth"
    (out / ".unfinished-1-model_0000005.pth").touch()  # As a process leaves it that is killed while it writes.
    run_command(arguments(sample, out, "--resume", splits=("train",)))
    assert f"see it: focalnet report {out}\n" in capfd.readouterr().out
    assert same_training(out, trained)
    assert not list(out.glob(".unfinished*"))


@pytest.mark.parametrize("name", ["config.yaml", "model_final.pth"])
def test_a_users_file_in_the_output_folder_is_kept(sample, tmp_path, name, refused):
    (tmp_path / name).write_text("a user's")
    with refused("train_net.py", f"{name} exists already and was not written by this program; --force replaces it"):
        run_command(arguments(sample, tmp_path, splits=("train",)))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "a user's"}


def test_a_new_run_has_a_seed_of_its_own_which_resuming_keeps(sample, tmp_path, record):
    out = tmp_path / "out"
    run_command(arguments(sample, out, "SEED", "-1", "SOLVER.MAX_ITER", "2", splits=("train",)))
    first = list(record["images"])
    assert len(first) == 4
    run_command(arguments(sample, out, "--resume", "SEED", "-1", "SOLVER.MAX_ITER", "5", splits=("train",)))
    assert [position for position, _ in record["images"]] == list(range(10))
    assert len({index for _, index in record["images"][:7]}) == 7, "an epoch has each image once"
    assert record["images"][:4] == first


def test_an_older_training_is_not_touched(sample, trained, refused):
    unfinished = trained / ".unfinished-1-model_0000007.pth"  # It might be running, and write this.
    unfinished.touch()

    def state() -> dict[Path, tuple[int, int]]:  # Reading, which notes the time of access, is allowed.
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in trained.iterdir()}

    before = state()
    with refused("train_net.py", r"there is a training at .*model_final.pth; resume it with --resume"):
        run_command(arguments(sample, trained))
    assert state() == before
    unfinished.unlink()


def test_resuming_what_is_done_trains_no_more_and_tells_the_result_again(sample, trained, record):
    measured = json.loads((trained / "metrics.json").read_text().splitlines()[-1])
    checkpoint = (trained / "model_final.pth").stat()
    run_command(arguments(sample, trained, "--resume", "TEST.EVAL_PERIOD", "2"))
    assert not record["losses"]
    assert (trained / "model_final.pth").stat() == checkpoint
    assert f"mask AP {measured['segm/AP']:.1f}" in (trained / "log.txt").read_text().splitlines()[-1]


def test_resuming_with_another_batch_size_is_not_possible(sample, trained, refused):
    with refused("train_net.py", "had batch_size 2, which cannot change to 4"):
        run_command(arguments(sample, trained, "--resume", "SOLVER.IMS_PER_BATCH", "4"))


@pytest.mark.parametrize(
    ("scores", "best"),
    [([10.0, 30.0, 20.0, 25.0], 3), ([10.0, 20.0, 30.0, 25.0], 5), ([10.0, 20.0, float("nan"), 25.0], 7)],
)
def test_the_best_checkpoint_is_kept_across_a_resumption(sample, tmp_path, monkeypatch, scores, best):
    remaining = iter(scores)
    monkeypatch.setattr(train_module, "evaluate", lambda job, model: {"bbox": {"AP": next(remaining)}})
    run_command(arguments(sample, tmp_path, "TEST.EVAL_PERIOD", "2"))
    run_command(arguments(sample, tmp_path, "--resume", "TEST.EVAL_PERIOD", "2", "SOLVER.MAX_ITER", "8"))
    assert torch.load(tmp_path / "model_best.pth", weights_only=True)["iteration"] == best
    kept, expected = weights(tmp_path / "model_best.pth"), weights(tmp_path / f"model_{best:07d}.pth")
    assert all(torch.equal(kept[name], expected[name]) for name in kept)
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_evaluation_alone_gives_what_the_training_ended_with(sample, trained, tmp_path):
    logged = json.loads((trained / "metrics.json").read_text().splitlines()[-1])
    args = make_parser().parse_args(
        arguments(sample, tmp_path, "--eval-only", "MODEL.WEIGHTS", str(trained / "model_final.pth"), splits=("val",))
    )
    results = train_module.evaluate_weights(job_from_arguments(args))
    assert set(results) == {"bbox", "segm"}
    for task in ("bbox", "segm"):
        assert results[task]["AP"] == pytest.approx(logged[f"{task}/AP"], nan_ok=True)


def test_a_loss_that_is_not_finite_stops_with_iteration_and_losses_and_keeps_checkpoints(
    sample, tmp_path, monkeypatch, refused
):
    calls = itertools.count()

    def poisoned(*args):
        return mask_rcnn_loss(*args) * (float("nan") if next(calls) == 3 else 1.0)

    mask_rcnn_loss = mask_head.mask_rcnn_loss
    monkeypatch.setattr(mask_head, "mask_rcnn_loss", poisoned)
    message = (
        r"stopped at iteration 3: a loss is not finite: loss_cls \d\.\d+, .*loss_mask nan, .* Checkpoints are kept$"
    )
    with refused("train_net.py", message):
        run_command(arguments(sample, tmp_path, splits=("train",)))
    log = (tmp_path / "log.txt").read_text()
    assert "loss_mask nan" in log
    assert "Traceback" not in log
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path / "model_0000001.pth").values())


def test_diverged_proposals_stop_with_iteration_and_losses_too(sample, tmp_path, refused):
    with refused("train_net.py", r"stopped at iteration \d: .*losses before it: .*loss_cls "):
        run_command(arguments(sample, tmp_path, "SOLVER.BASE_LR", "1e38", splits=("train",)))


def test_two_processes_train_and_evaluate_together_and_resume_after_a_kill_to_the_same_end(
    sample, tmp_path, refused, warm_environment, monkeypatch
):
    def command(config: Path, out: Path, *more: str) -> list[str]:
        several = [*dataset_arguments(sample), "--num-gpus", "2", "--dist-url", "auto", *more]
        options = [f"train.output_dir={out}", "train.max_iter=5", "train.checkpointer.period=2"]
        return ["--config-file", str(config), *several, *options]

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    # Those of the training that is killed start as always, and end with it.
    monkeypatch.setattr("multiprocessing.spawn._python_exe", os.fsencode(warm_environment / "bin" / "python"))
    run_command(command(LAZY, whole))
    assert "box AP" in (whole / "log.txt").read_text()
    killed = subprocess.run(
        [sys.executable, TOOL, *command(LAZY.with_name("killed_lazy.py"), cut)],
        cwd=tmp_path,
        capture_output=True,  # This waits for all processes to end, also those that the killed one has started.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # As in the background of a shell.
        timeout=300,
    )
    assert killed.returncode == -signal.SIGKILL
    assert (cut / "last_checkpoint").read_text() == "model_0000001.pth"
    run_command(command(LAZY, cut, "--resume"))
    assert same_training(whole, cut)
    one_process = ["--config-file", str(LAZY), *dataset_arguments(sample), "--resume", f"train.output_dir={cut}"]
    one_process.append("train.max_iter=5")
    with refused("train_net.py", "had processes 2, which cannot change to 1"):
        run_command(one_process)


@pytest.mark.parametrize("num_workers", ["0", "1"])
def test_an_image_that_cannot_be_read_is_named_in_one_line(sample, tmp_path, num_workers, refused, monkeypatch):
    content = json.loads((sample / "coco" / "instances_training.json").read_text())
    for image in content["images"]:
        (tmp_path / image["file_name"]).write_bytes((sample / "images" / "training" / "00001.jpg").read_bytes()[:700])
    (tmp_path / "some.json").write_text(json.dumps(content))
    command = ["--config-file", str(TINY), "--train-json", str(tmp_path / "some.json"), "--train-images", str(tmp_path)]
    command += ["OUTPUT_DIR", str(tmp_path / "out"), "DATALOADER.NUM_WORKERS", num_workers]
    with refused("train_net.py", rf"{tmp_path}/some.json: 7 photos cannot be read: {tmp_path}/0000\d.jpg "):
        run_command(command)
    # As if they had been damaged later.
    monkeypatch.setattr(train_net, "check_job", lambda job, train: Report())
    with refused("train_net.py", rf"cannot train on {tmp_path}/0000\d.jpg: "):
        run_command(command)


def test_a_lazy_config_trains_resumes_and_predicts(sample, tmp_path):
    command = ["--config-file", str(LAZY), *dataset_arguments(sample), f"train.output_dir={tmp_path}"]
    run_command(command)
    run_command([*command[:-1], "--resume", command[-1], "train.max_iter=3"])
    checkpoint = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert checkpoint["iteration"] == 2
    assert [category["name"] for category in checkpoint["run"]["categories"]] == ["ball", "tile", "cone", "star"]
    assert "mask AP" in (tmp_path / "log.txt").read_text()
    image = sample / "images" / "validation" / "00001.jpg"
    predictor = Detectron2Predictor(LAZY, tmp_path / "model_final.pth", device="cpu")
    assert predictor.predict(image, load_image(image).permute(1, 2, 0).numpy()).detections is not None


def test_a_report_tells_what_the_data_of_a_training_hold(trained, tmp_path):
    assert report.main([str(trained), "--data", "--out", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "instances_training.json" in page
    assert re.search(r"tile\s+\d+\s+\d+", page)


def test_a_twin_without_a_focalnet_trains_resumes_and_predicts(sample, tmp_path):
    config = LAZY.with_name("tiny_twin.py")
    command = ["--config-file", str(config), *dataset_arguments(sample), f"train.output_dir={tmp_path}"]
    run_command(command)
    run_command([*command[:-1], "--resume", command[-1], "train.max_iter=3"])
    checkpoint = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert checkpoint["iteration"] == 2
    assert not any("modulation" in name for name in checkpoint["model"])
    image = sample / "images" / "validation" / "00001.jpg"
    predictor = Detectron2Predictor(config, tmp_path / "model_final.pth", device="cpu")
    assert predictor.predict(image, load_image(image).permute(1, 2, 0).numpy()).detections is not None


def test_checkpoints_of_before_a_resume_count_among_those_to_keep(tmp_path, tiny_cfg):
    checkpointer = FocalNetCheckpointer(build_model(tiny_cfg), str(tmp_path))
    for iteration in (1, 3, 5):  # A kill came after the one of 5 was written, and before that of 1 was removed.
        checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
    (tmp_path / "model_best.pth").write_bytes(b"")
    hook = train_module.LastingCheckpointer(checkpointer, period=2, max_to_keep=2, start_iter=6)
    hook.trainer = SimpleNamespace(iter=6, start_iter=0, max_iter=20)
    hook.before_train()
    hook.after_step()
    assert len(list(tmp_path.glob("model_0*.pth"))) == 3
    hook.trainer.iter = 7
    hook.after_step()
    assert sorted(path.name for path in tmp_path.glob("model_*.pth")) == [
        "model_0000005.pth",
        "model_0000007.pth",
        "model_best.pth",
    ]


def test_a_resumed_training_takes_what_the_config_says_now(sample, tmp_path, refused):
    """After two iterations, another rate and another schedule: the rates are those of a training begun with them."""
    new = ["SOLVER.BASE_LR", "0.001", "SOLVER.STEPS", "(3,)", "SOLVER.WEIGHT_DECAY", "0.01", "SOLVER.MAX_ITER", "4"]
    rates = {}
    for name, first in (("cut", ["SOLVER.MAX_ITER", "2"]), ("whole", [*new[:-1], "4"])):
        run_command(arguments(sample, tmp_path / name, *first, splits=("train",)))
    run_command(arguments(sample, tmp_path / "cut", "--resume", *new, splits=("train",)))
    for name in ("cut", "whole"):
        groups = torch.load(tmp_path / name / "model_final.pth", weights_only=True)["trainer"]["optimizer"][
            "param_groups"
        ]
        rates[name] = [(group["lr"], group["weight_decay"]) for group in groups]
    assert rates["cut"] == rates["whole"]
    log = (tmp_path / "cut" / "log.txt").read_text()
    assert "resumed with learning rate 0.001, where the training had" in log
    assert "resumed with weight_decay 0.01" in log
    with refused("train_net.py", "another optimizer, which cannot change to (AdamW|SGD)"):
        optimizer = "SGD" if "betas" in groups[0] else "ADAMW"
        run_command(arguments(sample, tmp_path / "cut", "--resume", "SOLVER.OPTIMIZER", optimizer, splits=("train",)))
    with refused("train_net.py", "has done 4 iterations, of 3 asked for"):
        run_command(arguments(sample, tmp_path / "cut", "--resume", "SOLVER.MAX_ITER", "3", splits=("train",)))


def test_the_values_that_a_lazy_training_leaves_are_refused_with_their_source(sample, tmp_path, refused):
    job = load_job(LAZY)
    job.save(tmp_path / "config.yaml")
    message = r"config.yaml tells the values of a LazyConfig, which cannot be read back; give .*tiny_lazy.py instead"
    for flags in ([], ["--eval-only"], ["--resume"]):
        with refused("train_net.py", message):
            run_command(["--config-file", str(tmp_path / "config.yaml"), *dataset_arguments(sample), *flags])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["MODEL.NAME", "x"], "override MODEL.NAME x: Non-existent key: MODEL.NAME"),
        (["SOLVER.MAX_ITER", "many"], "override .*: Type mismatch"),
        (
            ["MODEL.DEVICE", "cuda"],
            "config's device must be cpu .*got 'cuda'; append MODEL.DEVICE cpu",
        ),
        (
            ["MODEL.FOCALNET.VARIANT", "focalnet_tinny"],
            "the model cannot be built: no FocalNet variant 'focalnet_tinny'",
        ),
        (["MODEL.WEIGHTS", "nowhere.pth"], "no checkpoint at nowhere.pth"),
        (["SOLVER.IMS_PER_BATCH", "0"], "batch_size must be a whole number of at least 1, got 0"),
        (["SOLVER.CHECKPOINT_PERIOD", "0"], "checkpoint_period must be a whole number of at least 1, got 0"),
        (["SOLVER.OPTIMIZER", "ADAM"], "SOLVER.OPTIMIZER must be SGD or ADAMW, got ADAM"),
        (["DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"], ".*RepeatFactorTrainingSampler cannot be resum"),
        (["MODEL.DEVICE", "tpu"], "the config's device must be cpu .*got 'tpu'"),
        (["MODEL.FPN.IN_FEATURES", "['stage1','stage3']"], "the model cannot be built: Strides 16 4 are not"),
        (["--eval-only"], "nothing to evaluate"),
    ],
)
def test_a_users_error_is_one_line(sample, tmp_path, more, message, refused):
    with refused("train_net.py", message):
        run_command(arguments(sample, tmp_path / "out", *more))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([], "--config-file is missing"),
        (["--config-file", "nowhere.yaml"], "no config at nowhere.yaml"),
        (["--config-file", str(TINY), "--train-json", "x.json"], "--train-json and --train-images go together"),
        (["--config-file", str(TINY)], "dataset coco_2017_train is not there"),
        (["--config-file", str(LAZY), "train.max_itr=3"], "override train.max_itr=3: .* has no train.max_itr"),
        (["--config-file", str(LAZY), "train.max_iter=1e5"], "max_iter must be a whole number .* got 100000.0"),
        (["--config-file", str(LAZY), "train.device=cuda"], "dataset coco_2017_train is not there"),
        (["--config-file", __file__], "is not a LazyConfig for training: it lacks model"),
    ],
)
def test_a_wrong_command_is_one_line_before_a_model_is_built(monkeypatch, tmp_path, command, message, refused):
    monkeypatch.chdir(tmp_path)
    with refused("train_net.py", message):
        run_command(command)
    assert not any(tmp_path.iterdir())


def test_the_tool_runs_from_any_folder_and_says_what_is_wrong_in_one_line(run_tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_tool(TOOL.name, "--config-file", "x.yaml") == (2, "", "train_net.py: no config at x.yaml\n")
    assert not os.listdir(tmp_path)
