"""Safe loading of what mmengine's runner saves, and of nothing else."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import mmengine.config.config
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from yapf.yapflib.yapf_api import FormatCode

from focalnet_backbone.openmmlab.compat import format_configs_once
from tests.openmmlab.conftest import ROOT


def test_log_buffers_survive_a_safe_load(tmp_path):
    buffer = HistoryBuffer([1.0, 3.0], [1, 1])
    torch.save({"buffer": buffer, "scalar": np.float64(2.5), "count": np.int64(3)}, tmp_path / "hub.pth")
    loaded = torch.load(tmp_path / "hub.pth", weights_only=True)
    assert loaded["buffer"].mean() == 2.0
    assert (loaded["scalar"], loaded["count"]) == (2.5, 3)


class Reduced:
    """An object that is pickled as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple]:
        return self.call


@pytest.mark.parametrize(
    "payload",
    [
        Reduced(eval, "1 + 1"),
        Reduced(getattr, HistoryBuffer, "__init__"),
        Reduced(getattr, HistoryBuffer, "__subclasses__"),
        Reduced(getattr, np.ndarray, "tofile"),
        Reduced(HistoryBuffer.register_statistics, len),
        Reduced(subprocess.run, "true"),
    ],
)
def test_a_checkpoint_cannot_call_anything_else(payload, tmp_path):
    torch.save({"payload": payload}, tmp_path / "bad.pth")
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        torch.load(tmp_path / "bad.pth", weights_only=True)


def test_the_package_alone_imports_no_openmmlab():
    code = "import sys, focalnet_backbone; sys.exit(any(m.startswith(('mmengine', 'mmcv')) for m in sys.modules))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_config_is_formatted_once_and_anew_when_it_changes(monkeypatch):
    formatted = []

    def count(text: str, **options: Any) -> tuple[str, bool]:
        formatted.append(text)
        return FormatCode(text, **options)

    monkeypatch.setattr(mmengine.config.config, "FormatCode", count)
    format_configs_once()
    config = Config({"a": 1, "b": {"c": [1, 2]}})
    first = config.pretty_text
    assert config.pretty_text == Config({"a": 1, "b": {"c": [1, 2]}}).pretty_text == first
    assert len(formatted) == 1
    config.b.c.append(3)
    assert "[1,2,3,]" in "".join(config.pretty_text.split())
    assert len(formatted) == 2
