"""The README's first sections do what they say."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys

import pytest
import skimage.data
from PIL import Image

from focalnet_backbone import list_variants
from focalnet_backbone.variants import VARIANTS
from tests.readme import ROOT, code_blocks, read_section, split_commands

LAUNCHERS = {"python": [sys.executable], "torchrun": [sys.executable, "-m", "torch.distributed.run"], "bash": ["bash"]}


def run(command: list[str], folder) -> subprocess.CompletedProcess:
    program, *arguments = command
    arguments = [str(ROOT / word) if word.startswith("tools/") else word for word in arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*LAUNCHERS[program], *arguments], cwd=folder, capture_output=True, text=True, check=False, env=environment
    )


def test_the_pyramid_snippets_and_commands_run_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.fromarray(skimage.data.chelsea()).save("photos/cat.jpg")
    names: dict = {}
    for language, block in code_blocks("Feature pyramids"):
        if language == "python":
            exec(compile(block, "README.md", "exec"), names)
        else:
            for command in split_commands(block):
                result = run(command, tmp_path)
                assert result.returncode == 0, result.stderr
    printed = capsys.readouterr().out
    assert "stage4 (768, 10, 15) stride 32" in printed
    assert "(300, 451)" in printed
    assert "'stage2': (1, 192, 25, 38)" in printed
    assert (tmp_path / "pyramid.png").stat().st_size > 20_000
    assert (tmp_path / "features" / "cat.jpg.safetensors").is_file()
    assert (tmp_path / "features" / "cat.jpg.png").is_file()


def test_the_analysis_command_runs(tmp_path):
    ((language, block),) = code_blocks("Variants")
    assert language == "bash"
    for command in split_commands(block):
        result = run(command, tmp_path)
        assert result.returncode == 0, result.stderr
        assert "input 1x3x800x1280" in result.stdout


def test_the_set_up_commands_exist():
    ((_, block),) = code_blocks("Set up")
    for program, script in split_commands(block):
        assert program == "bash"
        assert (ROOT / script).is_file()


def published_sizes() -> dict[str, tuple[int, float]]:
    """Parameters and MACs (G) of each variant as the README's table has them."""
    rows = re.findall(r"^\| `(focalnet_\w+)` \| ([\d,]+) \| ([\d.]+) \|", read_section("Variants"), flags=re.MULTILINE)
    return {name: (int(parameters.replace(",", "")), float(macs)) for name, parameters, macs in rows}


def test_the_table_has_every_variant():
    assert list(published_sizes()) == list_variants()


@pytest.mark.parametrize("name", list_variants("*_tiny_*"))
def test_the_tables_numbers_are_what_the_tool_prints(name, tmp_path):
    parameters, macs = published_sizes()[name]
    result = run(["python", "tools/analyze_model.py", name], tmp_path)
    total = result.stdout.strip().splitlines()[-1].split()
    assert int(total[1].replace(",", "")) == parameters
    assert math.isclose(float(total[2].replace(",", "")) / 1e3, macs, abs_tol=0.006)
    assert VARIANTS[name].published_params == round(parameters / 1e6, 1)
