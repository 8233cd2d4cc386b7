"""What a user imports, and what importing it costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import focalnet_backbone

HEAVY = [
    "detectron2",
    "fvcore",
    "matplotlib",
    "mmcv",
    "mmdet",
    "mmengine",
    "mmseg",
    "timm",
    "torchvision",
    "transformers",
]


@pytest.mark.parametrize("name", focalnet_backbone.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert getattr(focalnet_backbone, name).__doc__


def test_editors_see_the_names_that_are_imported_on_demand():
    tree = ast.parse(Path(focalnet_backbone.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: part.module for part in block.body for alias in part.names}
    assert seen == focalnet_backbone._ON_DEMAND
    assert set(seen) == set(focalnet_backbone.__all__) <= set(dir(focalnet_backbone))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Focalnet'"):
        focalnet_backbone.Focalnet  # noqa: B018


def test_the_package_imports_nothing_before_it_is_asked_for_and_then_torch_alone():
    code = (
        "import sys, focalnet_backbone; assert 'torch' not in sys.modules; focalnet_backbone.FocalNet;"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_version_is_a_release_number():
    assert re.fullmatch(r"\d+\.\d+\.\d+", focalnet_backbone.__version__)
