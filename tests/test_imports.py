"""Imports point one way, wherever they stand; the order is in `pyproject.toml`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    flags = ["--no-logo", "--no-cache"]
    return subprocess.run([*command, *flags], cwd=root, env=environment, capture_output=True, text=True)


def test_imports_point_one_way_without_a_circle():
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("file", "code", "named"),
    [
        (
            "system/files.py",
            "def late():\n    from focalnet_backbone.network.backbone import FocalNet\n",
            "focalnet_backbone.system.files -> focalnet_backbone.network.backbone",
        ),
        (
            "fast/fusion.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import focalnet_backbone.network.blocks\n",
            "focalnet_backbone.fast.fusion -> focalnet_backbone.network.blocks",
        ),
        (
            "checkpoints/errors.py",
            "from focalnet_backbone.checkpoints.load import load_checkpoint\n",
            "No cycles are allowed in focalnet_backbone.checkpoints.",
        ),
    ],
)
def test_an_arrow_against_the_order_or_a_circle_is_named(tmp_path, file, code, named):
    shutil.copytree(ROOT / "focalnet_backbone", tmp_path / "focalnet_backbone")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / "focalnet_backbone" / file
    path.write_text(path.read_text() + code)
    result = lint_imports(tmp_path)
    assert result.returncode == 1
    assert named in result.stdout
