"""The README's section on checkpoints does what it says, with random weights in place of the published ones."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file

from focalnet_backbone.checkpoints import export_state_dict
from focalnet_backbone.models import FocalNetForImageClassification
from focalnet_backbone.network.config import FocalNetConfig
from tests.readme import code_blocks, split_commands


@pytest.fixture
def placed_weights(tmp_path, monkeypatch) -> None:
    """No network, and the file that the error would ask for placed by hand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "torch" / "checkpoints" / "timm--focalnet_tiny_lrf.ms_in1k"
    folder.mkdir(parents=True)
    native = FocalNetForImageClassification(FocalNetConfig.from_variant("focalnet_tiny_lrf")).state_dict()
    save_file(export_state_dict(native, "timm", use_post_layernorm=False), folder / "model.safetensors")


def test_the_snippets_and_commands_run_in_order(placed_weights, capsys, run_tool):
    written, printed = [], ""
    for language, block in code_blocks("Checkpoints"):
        if language == "python":
            exec(compile(block, "README.md", "exec"), {})
            continue
        for python, tool, *arguments in split_commands(block):
            assert python == "python"
            printed += capsys.readouterr().out
            status, output, errors = run_tool(Path(tool).name, *arguments)
            assert status == 0, errors
            printed += output
            written.append(arguments[1])
    printed += capsys.readouterr().out
    assert "focalnet_tiny_lrf from timm/focalnet_tiny_lrf.ms_in1k (timm format): loaded" in printed
    assert written
    assert all(f"tensors to {path} (" in printed for path in written)
