"""The detectron2 section of the README: its snippets and commands run as they are printed."""

from __future__ import annotations

import json
import runpy
import sys

import pytest
import torch

from tests.conftest import DATA
from tests.readme import ROOT, code_blocks, read_section, split_commands

HEADING = "detectron2"
PYTHON = [block for language, block in code_blocks(HEADING) if language == "python"]
COMMANDS = [split_commands(block) for language, block in code_blocks(HEADING) if language == "bash"]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs a command of the README, with further arguments, in a folder with nothing in it but the configs."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)

    def run_tool(command: list[str], *more: str) -> None:
        python, tool, *arguments = command
        assert python == "python"
        monkeypatch.setattr(sys, "argv", [tool, *arguments, *more])
        try:
            runpy.run_path(str(ROOT / tool), run_name="__main__")
        except SystemExit as end:
            if end.code:
                raise

    return run_tool


def test_the_registry_snippet_builds_a_mask_rcnn_on_the_variant():
    names = {}
    exec(PYTHON[0], names)
    bottom_up = names["model"].backbone.bottom_up
    assert bottom_up.config.focal_windows == [9, 9, 9, 9]
    assert type(names["model"].roi_heads).__name__ == "StandardROIHeads"
    assert sum(p.numel() for p in names["model"].parameters()) / 1e6 == pytest.approx(48.68, abs=0.01)


def test_the_lazy_config_snippet_builds_a_pyramid():
    names = {}
    exec(PYTHON[1], names)
    maps = names["pyramid"](torch.zeros(1, 3, 64, 64))
    assert list(maps) == ["p2", "p3", "p4", "p5", "p6"]
    assert names["pyramid"].bottom_up.config.focal_levels == [3, 3, 3, 3]


@pytest.mark.parametrize("command", COMMANDS[0])
def test_the_commands_for_coco_name_configs_that_are_there(run, refused, command):
    with refused("(train_net|predict).py", "(coco_2017_(train|val) is not there|no image file photo.jpg)"):
        run(command)


def test_the_commands_for_the_sample_dataset_train_and_predict(run, tmp_path):
    make, train, predict = COMMANDS[1]
    run(make, "--train", "2", "--val", "1", "--size", "64")
    run(train, "SOLVER.MAX_ITER", "1", "SOLVER.IMS_PER_BATCH", "1")
    run(predict)
    assert (tmp_path / "outputs" / "sample" / "predictions" / "00001.png").is_file()


def test_the_table_has_the_published_numbers_and_our_parameters():
    published = json.loads((DATA / "downstream.json").read_text())
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in read_section(HEADING).splitlines()
        if line.startswith("| ")
    ]
    rows = [row for row in rows if row[1] in ("srf", "lrf")]
    expected = published["mask_rcnn_training"]["results"]
    assert len(rows) == len(expected)
    for (size, kernels, schedule, box, mask, parameters, ours, flops), row in zip(rows, expected, strict=True):
        assert (size, kernels, schedule) == (row["size"], row["kernels"], row["schedule"])
        assert [float(box), float(mask)] == [row["box_ap"], row["mask_ap"]]
        assert [float(parameters), float(flops)] == [row["params_m"], row["gflops"]]
        assert float(ours) == published["mask_rcnn_params_measured_in_mmdetection_3"][f"{size}_{kernels}"]
