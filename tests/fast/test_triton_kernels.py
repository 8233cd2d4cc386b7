"""Triton's kernels in its interpreter, and who asks for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

# Imported here, as it is not interpreted.
from focalnet_backbone import fast
from focalnet_backbone.fast import kernels, triton_kernels
from tests.fast.fast_paths import block
from tests.fast.triton_cases import CASES

X = (1, 4, 4, 6)
INTEGERS = {"positions": "i64", **dict.fromkeys(["height", "width", "channels", "gate_stride"], "i32")}
INTEGERS["positions_a_sample"] = "i32"


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
    monkeypatch.delattr(fast, "triton_kernels")
    monkeypatch.delitem(sys.modules, "focalnet_backbone.fast.triton_kernels")
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ImportError, match="asks for Triton, which is not installed"):
        block({})(torch.zeros(X))


@pytest.mark.parametrize(("capability", "pointer"), [(80, "*fp32"), (90, "*bf16"), (90, "*fp16")])
def test_they_compile_for_gpus(capability, pointer, tmp_path, monkeypatch):
    """Down to machine code, for which no GPU is needed."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    tile = {"POSITIONS": triton_kernels._POSITIONS, "CHANNELS": triton_kernels._CHANNELS}
    wanted = dict.fromkeys(["CONVOLVED", "ACTIVATED", "GATHERED"], True)
    unwanted = {"gates": None, "activated": None, "gathered": None, "ACTIVATED": False, "GATHERED": False}
    kernels_of = {
        triton_kernels._convolve_kernel: [
            {"SIZE": 9, **wanted, "FIRST": False},
            {"SIZE": 15, **wanted, **unwanted, "FIRST": True},
        ],
        triton_kernels._level_backward_kernel: [{"SPREAD": True}, {"SPREAD": False}],
        triton_kernels._weight_gradient_kernel: [{"SIZE": 13, "PART": triton_kernels._GRADIENT_POSITIONS}],
    }
    for kernel, variants in kernels_of.items():
        for variant in variants:
            constants = {**variant, **tile}
            types = {n: INTEGERS.get(n, "*fp32" if n == "sums" else pointer) for n in kernel.arg_names}
            types |= dict.fromkeys(constants, "constexpr")
            values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
            compiled = triton.compile(ASTSource(kernel, types, values), target=GPUTarget("cuda", capability, 32))
            assert len(compiled.asm["cubin"]) > 1000
