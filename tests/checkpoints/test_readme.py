"""The README's section on checkpoints does what it says, with random weights in place of the published ones."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file

from focalnet_backbone.checkpoints import export_state_dict
from focalnet_backbone.models import FocalNetForImageClassification
from focalnet_backbone.variants import get_variant

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Checkpoints\n")[2].partition("\n## ")[0]


@pytest.fixture
def placed_weights(tmp_path, monkeypatch) -> None:
    """No network, and the file that the error would ask for placed by hand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "torch" / "checkpoints" / "timm--focalnet_tiny_lrf.ms_in1k"
    folder.mkdir(parents=True)
    native = FocalNetForImageClassification(get_variant("focalnet_tiny_lrf").config()).state_dict()
    save_file(export_state_dict(native, "timm", use_post_layernorm=False), folder / "model.safetensors")


def blocks(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", SECTION, flags=re.DOTALL)
    assert found, f"the section has no {language} block"
    return found


def test_the_python_in_the_readme_runs(placed_weights, capsys):
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert "focalnet_tiny_lrf from timm/focalnet_tiny_lrf.ms_in1k (timm format): loaded" in capsys.readouterr().out


def test_the_commands_in_the_readme_run(placed_weights, capsys, monkeypatch):
    commands = [shlex.split(line) for block in blocks("bash") for line in block.splitlines()]
    for python, tool, *arguments in commands:
        assert python == "python"
        monkeypatch.setattr(sys, "argv", [tool, *arguments])
        runpy.run_path(str(ROOT / tool), run_name="__main__")
    assert capsys.readouterr().out.count("wrote") == len(commands)
