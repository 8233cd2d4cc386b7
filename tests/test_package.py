"""What a user imports, and what importing it costs."""

from __future__ import annotations

import re
import subprocess
import sys

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


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Focalnet'"):
        focalnet_backbone.Focalnet  # noqa: B018


def test_importing_the_package_needs_torch_alone():
    code = f"import sys, focalnet_backbone; print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_version_is_a_release_number():
    assert re.fullmatch(r"\d+\.\d+\.\d+", focalnet_backbone.__version__)
