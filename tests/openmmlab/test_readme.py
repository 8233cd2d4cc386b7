"""The README's section does what it says."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

from focalnet_backbone.openmmlab.runners import load_config
from tests.openmmlab.conftest import SAMPLE_CONFIG
from tests.readme import ROOT, code_blocks, split_commands

HEADING = "mmsegmentation and mmdetection"
OWN_CONFIG, IN_PYTHON = [block for language, block in code_blocks(HEADING) if language == "python"]
SEGMENTORS, DETECTORS, SAMPLE = [
    split_commands(block) for language, block in code_blocks(HEADING) if language == "bash"
]


def test_own_config_builds_a_segmentor_with_focalnet(tmp_path):
    (tmp_path / "own.py").write_text(OWN_CONFIG)
    cfg = load_config(tmp_path / "own.py")
    import mmseg.models  # noqa: F401
    import torch
    from mmseg.registry import MODELS

    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    assert type(model.backbone).__name__ == "FocalNet"
    assert [conv.conv.in_channels for conv in model.decode_head.lateral_convs] == [96, 192, 384]


def test_python_snippet_runs():
    init_default_scope("mmdet")
    exec(IN_PYTHON, {})


@pytest.mark.parametrize("command", [*SEGMENTORS, *DETECTORS], ids=lambda command: " ".join(command[1:]))
def test_commands_for_published_models_name_tools_configs_and_flags_that_exist(command):
    _, tool, config, *rest = command
    assert (ROOT / tool).is_file()
    cfg = Config.fromfile(ROOT / config)
    assert "--tta" not in rest or cfg.tta_pipeline
    if Path(tool).name == "dist_test.sh":
        loop = cfg.train_cfg
        last = f"epoch_{loop.max_epochs}" if "max_epochs" in loop else f"iter_{loop.max_iters}"
        assert rest[0] == f"work_dirs/{Path(config).stem}/{last}.pth"


def test_commands_for_the_sample_dataset_run_in_their_order(tiny_options, tmp_path, monkeypatch, capfd):
    """With fewer and smaller images, a smaller model and two iterations."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    last = f"iter_{Config.fromfile(SAMPLE_CONFIG).train_cfg.max_iters}.pth"
    assert [Path(command[3]).name for command in SAMPLE[2:]] == [last, last]
    options = [option for option in tiny_options if "data_root" not in option] + ["train_cfg.max_iters=2"]
    smaller = {
        "make_sample_dataset.py": ["--train", "4", "--val", "2", "--size", "64"],
        "train.py": ["--cfg-options", *options, "experiment_name=readme"],
        "test.py": ["--cfg-options", *options, "experiment_name=readme_test"],
        "predict.py": [],
    }
    for _, tool, *arguments in SAMPLE:
        name = Path(tool).name
        arguments = [word.replace(last, "iter_2.pth") for word in arguments]
        if name == "predict.py":  # It takes no options, but training has left the config with them.
            arguments[0] = f"work_dirs/{SAMPLE_CONFIG.stem}/{SAMPLE_CONFIG.name}"
        monkeypatch.setattr(sys, "argv", [tool, *arguments, *smaller[name]])
        assert not exit_status(ROOT / tool), capfd.readouterr().err
    names = {path.name for path in (tmp_path / "work_dirs" / "predictions").iterdir()}
    assert names == {"00001.png", "00001_overlay.png"}


def exit_status(tool: Path) -> str | int | None:
    """Run a tool in this process."""
    try:
        runpy.run_path(str(tool), run_name="__main__")
    except SystemExit as end:
        return end.code
    return None
