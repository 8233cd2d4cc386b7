"""Logs of detectron2 and mmengine as curves, also of trainings that were killed while they wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from focalnet_backbone.report.runs import differences, flatten, read_run


def write_lines(path: Path, *values: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in values))
    return path


@pytest.fixture
def detectron2_run(tmp_path) -> Path:
    folder = tmp_path / "mask_rcnn"
    write_lines(
        folder / "metrics.json",
        {
            "iteration": 19,
            "total_loss": 3.0,
            "loss_cls": 1.0,
            "lr": 0.1,
            "time": 0.5,
            "data_time": 0.1,
            "eta_seconds": 9,
        },
        {"iteration": 39, "total_loss": 2.0, "loss_cls": 0.5, "lr": 0.2, "time": 0.7, "data_time": 0.2, "max_mem": 700},
        {"iteration": 39, "bbox/AP": 12.5, "bbox/AP-ball": 20.0},
    )
    (folder / "config.yaml").write_text("SOLVER:\n  MAX_ITER: 80\n  BASE_LR: 0.1\nMODEL:\n  NAME: a\n")
    return folder


@pytest.fixture
def mmengine_run(tmp_path) -> Path:
    folder = tmp_path / "upernet"
    first, second = folder / "20260101_000000", folder / "20260102_000000"
    line = {"base_lr": 0.1, "data_time": 0.1, "time": 0.4, "memory": 300, "epoch": 1}
    write_lines(
        first / "vis_data" / "scalars.json",
        {**line, "lr": 0.1, "loss": 5.0, "decode.loss_ce": 4.0, "decode.acc_seg": 20.0, "iter": 50, "step": 50},
        {**line, "lr": 0.1, "loss": 4.0, "decode.loss_ce": 3.0, "decode.acc_seg": 30.0, "iter": 100, "step": 100},
    )
    write_lines(
        second / "vis_data" / "scalars.json",
        {**line, "lr": 0.1, "loss": 3.5, "decode.loss_ce": 2.5, "decode.acc_seg": 35.0, "iter": 100, "step": 100},
        {"mIoU": 22.0, "aAcc": 60.0, "data_time": 0.01, "time": 0.2, "step": 100},
    )
    (folder / "upernet.py").write_text('train_cfg = dict(max_iters=100)\nmodel = dict(type="UPerNet")\n')
    return folder


def test_detectron2s_metrics_are_sorted_into_curves(detectron2_run):
    run = read_run(detectron2_run)
    assert run.losses == {"loss": [(20, 3.0), (40, 2.0)], "loss_cls": [(20, 1.0), (40, 0.5)]}
    assert run.rates == {"lr": [(20, 0.1), (40, 0.2)]}
    assert run.times == {"time": [(20, 0.5), (40, 0.7)], "data_time": [(20, 0.1), (40, 0.2)]}
    assert run.memory == [(40, 700.0)]
    assert run.validation == {"bbox/AP": [(40, 12.5)], "bbox/AP-ball": [(40, 20.0)]}
    assert run.state == "40 of 80 iterations, not ended"
    (detectron2_run / "model_final.pth").touch()
    assert run.state == "40 of 80 iterations, ended"


def test_a_resumed_training_of_mmengine_has_one_curve(mmengine_run):
    run = read_run(mmengine_run)
    assert run.losses == {"loss": [(50, 5.0), (100, 3.5)], "decode.loss_ce": [(50, 4.0), (100, 2.5)]}
    assert run.validation == {"mIoU": [(100, 22.0)], "aAcc": [(100, 60.0)]}
    assert run.state == "100 of 100 iterations, ended"
    assert run.config["model.type"] == "UPerNet"


@pytest.mark.parametrize("tail", ['{"iteration": 59, "total_l', "\x00\x00\x00", '[1, 2]\n"text"\n'])
def test_what_a_killed_training_was_writing_is_left_out(detectron2_run, tail):
    before = read_run(detectron2_run).losses
    with (detectron2_run / "metrics.json").open("a") as file:
        file.write(tail)
    assert read_run(detectron2_run).losses == before


@pytest.mark.parametrize("content", ["", "a: [", "!!python/object/apply:os.system ['false']", "- 1\n"])
def test_a_config_that_cannot_be_read_leaves_the_curves(detectron2_run, content):
    (detectron2_run / "config.yaml").write_text(content)
    run = read_run(detectron2_run)
    assert run.config == {}
    assert run.state == "40 iterations"


def test_no_training_is_said_in_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"neither detectron2's metrics.json nor mmengine's"):
        read_run(tmp_path)


def test_configs_differ_where_their_values_do():
    first, second = flatten({"a": {"b": 1, "c": [1, 2]}, "d": 3}), flatten({"a": {"b": 2, "c": [1, 2]}})
    assert differences([first, second]) == [("a.b", [1, 2]), ("d", [3, None])]
