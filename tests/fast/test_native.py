"""Depth-wise convolutions compiled from C are those of torch, and used where they can be had and are faster."""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import stat
import tempfile
import threading
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from focalnet_backbone.fast import kernels, measuring, native
from focalnet_backbone.system.switches import VariableError
from tests.fast.test_kernels import relative_error


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch):
    monkeypatch.setenv(native.SWITCH, "on")
    native._chosen_library.cache_clear()
    yield
    native._chosen_library.cache_clear()


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("FOCALNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_compiler(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


def arguments(*shape: int, size: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(shape), torch.randn(shape[-1], 1, size, size)


def compiler(path: Path, lines: str) -> str:
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)
    return str(path)


# Results


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", [1, 3, 7, 13, 21])
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 16), (2, 7, 7, 48), (1, 9, 5, 32), (1, 33, 23, 16), (1, 70, 30, 16), (1, 13, 259, 16)],
    ids=str,
)
def test_the_convolution_is_that_of_torch(shape, size, threads):
    x, kernel = arguments(*shape, size=size)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        # Larger maps than it takes by itself for small kernels.
        library = native._chosen_library("on")
        found = {mirrored: native._convolve(library, x, kernel, mirrored) for mirrored in (False, True)}
    finally:
        torch.set_num_threads(before)
    for mirrored, y in found.items():
        exact = kernel.flip(2, 3).double() if mirrored else kernel.double()
        maps = F.conv2d(x.double().permute(0, 3, 1, 2), exact, padding=size // 2, groups=shape[-1])
        assert relative_error(y, maps.permute(0, 2, 3, 1)) < 1e-6


def test_results_do_not_depend_on_the_number_of_threads():
    x, kernel = arguments(1, 37, 41, 32, size=9)
    library = native._chosen_library("on")
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 16):
            torch.set_num_threads(threads)
            found.append(native._convolve(library, x, kernel))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_what_is_no_number_spreads_as_far_as_the_kernel_reaches():
    x, kernel = arguments(1, 20, 20, 16, size=7)
    x[0, 10, 10, 3] = torch.nan
    y = native.depthwise(x, kernel)
    expected = torch.zeros(20, 20, 16, dtype=torch.bool)
    expected[7:14, 7:14, 3] = True
    assert torch.equal(y[0].isnan(), expected)


@pytest.mark.parametrize("offset", [-100.0, -6.0, -3.0, 0.0, 3.0, 6.0, 100.0, -torch.inf, torch.inf, torch.nan])
def test_a_convolution_can_apply_gelu(offset):
    x = torch.linspace(-1.5, 1.5, 2 * 11 * 13 * 32).view(2, 11, 13, 32) + offset
    found = native.depthwise(x, torch.ones(32, 1, 1, 1), gelu=True)
    torch.testing.assert_close(found.double(), F.gelu(x.double()), rtol=3e-7, atol=1.2e-6, equal_nan=True)


def test_what_has_overflowed_comes_out_of_gelu_as_torch_has_it():
    x = torch.tensor([torch.inf, -torch.inf, torch.nan, 3e38, -3e38, 0.0, 1e-40, -1e-40, 5.5, -5.5] + [0.0] * 6)
    y = native.depthwise(x.view(1, 1, 1, 16), torch.ones(16, 1, 1, 1), gelu=True)
    torch.testing.assert_close(y.flatten(), F.gelu(x), atol=2e-7, rtol=2e-7, equal_nan=True)


def test_a_thread_leaves_no_memory_behind():
    x, kernel = arguments(1, 20, 20, 16, size=51)

    def convolve():
        threads = [threading.Thread(target=native.depthwise, args=(x, kernel)) for _ in range(50)]
        for thread in threads:
            thread.start()
            thread.join()

    convolve()
    before = Path("/proc/self/statm").read_text().split()[1]
    convolve()
    after = Path("/proc/self/statm").read_text().split()[1]
    # Half a megabyte of each would be 6,000 pages.
    assert int(after) - int(before) < 2000


# When it is used


UNSUITED = {
    "double": lambda x, kernel: (x.double(), kernel.double()),
    "bfloat16": lambda x, kernel: (x.bfloat16(), kernel.bfloat16()),
    "meta": lambda x, kernel: (x.to("meta"), kernel.to("meta")),
    "rows of columns": lambda x, kernel: (x.transpose(1, 2), kernel),
    "kernel's too": lambda x, kernel: (x, kernel.transpose(2, 3)),
    "8 channels": lambda x, kernel: (x[..., :8].contiguous(), kernel[:8]),
    "grad": lambda x, kernel: (x.requires_grad_(), kernel),
    "empty": lambda x, kernel: (x[:0], kernel),
    "slower": lambda x, kernel: (x.new_zeros(1, 65, 64, 16), kernel[..., 2:7, 2:7].contiguous()),
    "fewer kernels": lambda x, kernel: (x, kernel[:8]),
    "even": lambda x, kernel: (x, kernel[..., :8, :8].contiguous()),
    "no square": lambda x, kernel: (x, kernel[..., :7].contiguous()),
    "negative": lambda x, kernel: (torch._neg_view(x), kernel),
    "kernel's values too": lambda x, kernel: (x, torch._neg_view(kernel)),
    "no memory": lambda x, kernel: (torch._efficientzerotensor(x.shape), kernel),
}


@pytest.mark.parametrize("change", UNSUITED.values(), ids=UNSUITED)
def test_what_it_is_not_made_for_is_left_to_torch(change):
    x, kernel = arguments(1, 20, 22, 16, size=9)
    assert native.depthwise(x, kernel) is not None
    assert native.depthwise(*change(x, kernel)) is None


def test_modes_that_look_at_each_operator_see_one_of_torch():
    x, kernel = arguments(1, 20, 20, 16, size=9)
    with FlopCounterMode(display=False) as counter:
        kernels.depthwise(x, kernel)
    assert counter.get_total_flops() == 2 * x.numel() * 81
    with FakeTensorMode() as mode:
        assert kernels.depthwise(mode.from_tensor(x), mode.from_tensor(kernel)).shape == x.shape
    with torch.autocast("cpu", torch.bfloat16):
        assert kernels.depthwise(x, kernel).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("times", "used"), [({"native": 1.0, "torch": 1.1}, True), ({"native": 1.1, "torch": 1.0}, False)]
)
def test_by_default_the_faster_one_is_used(times, used, monkeypatch):
    monkeypatch.setenv(native.SWITCH, "auto")
    monkeypatch.setattr(native, "recall_times", lambda *_, **__: times)
    assert (native.depthwise(*arguments(1, 20, 20, 16, size=9)) is not None) == used


def test_both_are_measured_whatever_modes_are_on(cache):
    library = native._chosen_library("on")
    state = torch.get_rng_state()
    with torch.inference_mode(), torch.device("meta"):
        times = native.least_times(lambda: native._make_runs(library))
    assert min(times.values()) > 0
    assert list(times) == ["torch", "native"]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_process_that_is_stopped_for_a_moment_is_measured_again():
    stops = itertools.chain([0.0, 0.05, 0.02], itertools.repeat(0.001))
    runs = {"slower": lambda: time.sleep(0.002), "faster": lambda: time.sleep(next(stops))}
    times = measuring.least_times(lambda: runs)
    assert times["faster"] < times["slower"]


def test_the_environment_variable_switches_it_off(monkeypatch):
    x, kernel = arguments(1, 20, 20, 16, size=9)
    monkeypatch.setenv(native.SWITCH, "off")
    assert native.depthwise(x, kernel) is None
    monkeypatch.setenv(native.SWITCH, "yes")
    with pytest.raises(VariableError, match="FOCALNET_NATIVE must be on, off or auto, got 'yes'"):
        native.depthwise(x, kernel)


# Compiling


def test_it_is_compiled_once(cache, monkeypatch, no_compiler):
    x, kernel = arguments(1, 20, 20, 16, size=9)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", os.defpath)
        expected = native.depthwise(x, kernel)
    native._chosen_library.cache_clear()
    assert torch.equal(native.depthwise(x, kernel), expected)
    (made,) = cache.glob("depthwise-*.so")
    assert stat.S_IMODE(made.stat().st_mode) == 0o600


def test_without_a_compiler_it_is_left_to_torch(cache, monkeypatch, no_compiler):
    x, kernel = arguments(1, 20, 20, 16, size=9)
    with pytest.raises(
        VariableError, match=r"FOCALNET_NATIVE=on, but depthwise\.c cannot be compiled here: gcc: .*; cc: "
    ):
        native.depthwise(x, kernel)
    monkeypatch.setenv(native.SWITCH, "auto")
    assert native.depthwise(x, kernel) is None
    assert not list(cache.glob("depthwise-*"))


def test_tools_tell_in_one_line_that_there_is_no_compiler(run_tool, cache, no_compiler, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    arguments = [tmp_path / "a.png", "--variant", "focalnet_tiny_lrf", "--out", tmp_path / "out"]
    status, _, errors = run_tool("extract_features.py", *arguments)
    assert status == 2
    assert "FOCALNET_NATIVE=on, but depthwise.c cannot be compiled here" in errors.splitlines()[-1]
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    "lines",
    ["exit 1", "exit 0", "kill -9 $$", "echo 'int depthwise() { return 0; }' | gcc -shared -x c - -o ${@##* }"],
    ids=["fails", "makes nothing", "dies", "makes something else"],
)
def test_another_compiler_takes_the_place_of_one_that_does_not_do(lines, cache, monkeypatch, tmp_path):
    monkeypatch.setenv("CC", compiler(tmp_path / "a compiler", lines).replace(" ", "\\ "))
    x, kernel = arguments(1, 20, 20, 16, size=9)
    assert native.depthwise(x, kernel) is not None
    monkeypatch.setattr(native, "_FLAGS", ["-no-such-option"])
    native._chosen_library.cache_clear()
    with pytest.raises(VariableError, match=r"a compiler: .*gcc: .*no-such-option"):
        native.depthwise(x, kernel)


@pytest.mark.parametrize("compiler_of", ["'", "gcc '", " "])
def test_a_compiler_that_is_no_command_is_passed_over(compiler_of, cache, monkeypatch):
    monkeypatch.setenv("CC", compiler_of)
    assert native.depthwise(*arguments(1, 20, 20, 16, size=9)) is not None


# The shell's child would go on, and hold what the shell's messages come through.
HANGING = "sleep 20; exit 1"


def test_a_compiler_that_hangs_is_not_waited_for(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("CC", compiler(tmp_path / "hanging", HANGING))
    monkeypatch.setattr(native, "_SECONDS_TO_COMPILE", 0.5)
    start = time.monotonic()
    with pytest.raises(VariableError, match=r"cannot be compiled here: .*/hanging is not done after 0\.5 seconds"):
        native.depthwise(*arguments(1, 20, 20, 16, size=9))
    assert time.monotonic() - start < 5


def test_compiling_can_be_interrupted(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("CC", compiler(tmp_path / "hanging", HANGING))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    start = time.monotonic()
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        native.depthwise(*arguments(1, 20, 20, 16, size=9))
    assert time.monotonic() - start < 5
    assert not list(tmp_path.glob("focalnet-*"))
    monkeypatch.delenv("CC")
    assert native.depthwise(*arguments(1, 20, 20, 16, size=9)) is not None


@pytest.mark.parametrize("forbidden", ["cache", "focalnet-"], ids=["where it is kept", "where it is made"])
def test_one_of_two_folders_may_be_of_a_file_system_from_which_nothing_can_be_run(
    forbidden, cache, monkeypatch, tmp_path
):
    def load(path, load=ctypes.CDLL):
        if Path(path).is_relative_to(tmp_path / "cache") == (forbidden == "cache"):
            raise OSError("failed to map segment from shared object")
        return load(path)

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert native.depthwise(*arguments(1, 20, 20, 16, size=9)) is not None
    assert len(list(cache.glob("depthwise-*.so"))) == (forbidden != "cache")
    assert not list(cache.glob(".unfinished-*"))


def test_the_folder_that_remembers_may_be_the_one_that_one_is_in(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("FOCALNET_CACHE", ".")
    monkeypatch.chdir(tmp_path)
    x, kernel = arguments(1, 20, 20, 16, size=9)
    native.depthwise(x, kernel)
    native._chosen_library.cache_clear()
    monkeypatch.setattr(native, "_run", None)
    assert native.depthwise(x, kernel) is not None


@pytest.mark.parametrize(
    "damage",
    [
        lambda code: b"",
        lambda code: b"#!/bin/sh",
        lambda code: code[:9000],
        lambda code: code[:3000] + b"\xcc" * 6000 + code[9000:],
        lambda code: code,
    ],
    ids=["empty", "no library", "half", "other code", "writable by others"],
)
def test_a_kept_file_that_is_not_to_be_loaded_is_made_anew(damage, cache):
    x, kernel = arguments(1, 20, 20, 16, size=9)
    native.depthwise(x, kernel)
    (made,) = cache.glob("depthwise-*.so")
    code = made.read_bytes()
    made.unlink()
    made.write_bytes(damage(code))
    made.chmod(0o666 if damage(code) == code else 0o600)
    native._chosen_library.cache_clear()
    assert native.depthwise(x, kernel) is not None
    assert made.read_bytes() == code
    assert stat.S_IMODE(made.stat().st_mode) == 0o600


def test_where_it_cannot_be_kept_it_is_used_all_the_same(monkeypatch, tmp_path):
    file = tmp_path / "a file"
    file.touch()
    monkeypatch.setenv("FOCALNET_CACHE", str(file / "below"))
    assert native.depthwise(*arguments(1, 20, 20, 16, size=9)) is not None
