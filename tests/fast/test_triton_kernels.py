"""Triton's kernels in its interpreter, and who asks for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

# Imported here, as it is not interpreted.
from focalnet_backbone.fast import kernels, triton_kernels
from tests.fast.fast_paths import block
from tests.fast.triton_cases import CASES

X = (1, 4, 4, 6)


@pytest.fixture(scope="module")
def failures() -> dict[str, str]:
    """What went wrong in each case: one process for all."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", kernels.TRITON_SWITCH: "1"}
    command = [sys.executable, "-m", "tests.fast.triton_cases"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", CASES)
def test_the_interpreter_computes_what_the_plain_formulation_does(failures, case):
    assert not failures[case]


def test_nobody_gets_them_unasked(monkeypatch):
    monkeypatch.delenv(kernels.TRITON_SWITCH, raising=False)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert kernels.triton_kernels(torch.zeros(X)) is None
    monkeypatch.setenv(kernels.TRITON_SWITCH, "1")
    assert kernels.triton_kernels(torch.zeros(X)) is triton_kernels
    assert kernels.triton_kernels(torch.zeros(X, dtype=torch.float64)) is None, "they compute in float32"
    monkeypatch.delenv("TRITON_INTERPRET")
    assert kernels.triton_kernels(torch.zeros(X)) is None, "the CPU has none"


def test_what_cannot_be_had_is_told(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv(kernels.TRITON_SWITCH, "yes")
    with pytest.raises(ValueError, match="FOCALNET_TRITON must be 0 or 1, got 'yes'"):
        block({})(torch.zeros(X))
    monkeypatch.setenv(kernels.TRITON_SWITCH, "1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="asks for Triton, which is not installed"):
        block({})(torch.zeros(X))
