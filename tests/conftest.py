"""Fixtures and helpers that several test files share."""

from __future__ import annotations

import gc
import os
import re
import resource
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

# Before a tool under test imports pip: on Python 3.11 and older, setuptools cannot be imported after it, and
# torch.compile does so when it first compiles.
import setuptools  # noqa: F401
import torch

# Of the modules that tests import nothing can be freed, and looking for it takes a quarter of the time.
gc.disable()

# A shell's background job ignores Ctrl-C, and so would everything that it starts; the tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

DATA = Path(__file__).parent / "data"
TOOLS = Path(__file__).parents[1] / "tools"
WARM = Path(__file__).with_name("warm.py")
REFERENCE_KNOBS = {
    "use_postln": "use_post_layernorm",
    "use_postln_in_modulation": "use_post_layernorm_in_modulation",
    "in_chans": "num_channels",
    "num_classes": "num_labels",
}


# Each is run by one process, and would be waited for by the other if it came last.
LONG = ("tests/test_demo.py", "tests/documents/test_pages.py", "tests/openmmlab/test_training.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first."""
    items.sort(key=lambda item: item.location[0] not in LONG)


def pytest_collection_finish() -> None:
    """What is imported by now need not be looked through each time that a test collects garbage: it takes a second.

    Nor need the rest as often as Python does by itself, which takes a fifth of the time of an export.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 10, 10)
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What tests find out about files is not remembered beyond them; low precision is what every processor computes."""
    os.environ["FOCALNET_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["FOCALNET_CPU_AUTOCAST"] = "on"


@pytest.fixture(autouse=True, scope="session")
def _configs_as_they_are() -> Iterator[None]:
    """mmengine writes configs without having them formatted by yapf, which takes up to three seconds for a detector's.

    tests/openmmlab/test_compat.py formats one, and so do programs that tests start, such as trainings of two processes.
    """
    with pytest.MonkeyPatch.context() as patch:
        if "mmengine.config.config" in sys.modules:
            patch.setattr("mmengine.config.config.FormatCode", lambda text, **_: (text, True))
        yield


@pytest.fixture
def small_files():
    """A limit of 8 kB to what a file may hold, which stands in for a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def load_golden(name: str) -> dict[str, Any]:
    """The reference vector `tests/data/golden/NAME.pt`."""
    return torch.load(DATA / "golden" / f"{name}.pt", weights_only=True)


def knobs_from_reference(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Reference keyword arguments under our names, `out_indices` (which counts stages from 0 there) left out."""
    return {REFERENCE_KNOBS.get(k, k): v for k, v in kwargs.items() if k != "out_indices"}


@pytest.fixture(scope="session")
def complete_environment() -> dict[str, str]:
    """Environment variables with which the scripts work in the environment of the tests.

    It must lack nothing: the scripts would install it, and a test must not change the environment that it runs in.
    """
    inspect = [sys.executable, str(TOOLS / "inspect_environment.py"), "missing", "--own", "yes"]
    result = subprocess.run([*inspect, "--repo", str(TOOLS.parent)], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "", f"set up {sys.prefix} for {TOOLS.parent} first: it lacks {result.stdout}"
    return {**os.environ, "FOCALNET_VENV": sys.prefix}


@pytest.fixture(scope="session")
def warm_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An environment whose `bin/python` runs programs that find the frameworks imported: see `tests/warm.py`.

    Its `bin/torchrun` is one of them, and each process that it starts.
    """
    folder = tmp_path_factory.mktemp("warm")
    address, python = folder / "socket", folder / "bin" / "python"
    python.parent.mkdir()
    torchrun = python.with_name("torchrun")
    torchrun.write_text(f'#!/bin/sh\nPYTHON_EXEC="{python}" exec "{python}" -m torch.distributed.run "$@"\n')
    torchrun.chmod(0o755)
    cold = f'exec "{sys.executable}" "$@"'
    # What looks for packages sees the environment as it is.
    some = f'case " $* " in *" pip "* | *inspect_environment.py*) {cold} ;; esac'
    warm = f'exec "{sys.executable}" -I -S "{WARM}" "{address}" "$@"'
    only_linux_can = hasattr(os, "pidfd_open")
    python.write_text("\n".join(["#!/bin/sh", some, warm] if only_linux_can else ["#!/bin/sh", cold]) + "\n")
    python.chmod(0o755)
    if not only_linux_can:
        yield folder
        return
    variables = {**os.environ, "PYTHONPATH": str(TOOLS.parent)}
    command = [sys.executable, str(WARM), str(address)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=variables) as server:
        try:
            assert server.stdout.readline() == b"serves\n"
            yield folder
        finally:
            server.terminate()


@pytest.fixture
def run_tool(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run a tool's command line in this process; returns its exit status, output and error output."""

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capsys.readouterr()
        status: Any = 0
        try:
            runpy.run_path(str(TOOLS / name), run_name="__main__")
        except SystemExit as exit_:
            status = exit_.code or 0
        output, errors = capsys.readouterr()
        return (status, output, errors) if isinstance(status, int) else (1, output, f"{errors}{status}\n")

    return run


@pytest.fixture
def refused(capsys) -> Callable[[str, str], AbstractContextManager[None]]:
    """Demands of what is done within that a tool ends with status 2, its last line being its name and a message."""

    @contextmanager
    def check(tool: str, message: str) -> Iterator[None]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            yield
        assert stopped.value.code == 2
        assert re.match(rf"{tool}: .*{message}", capsys.readouterr().err.splitlines()[-1])

    return check


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that appears if an image library starts Ghostscript."""
    marker, programs = tmp_path / "program_was_run", tmp_path / "programs"
    programs.mkdir()
    for name in ("gs", "gswin64c", "gswin32c"):
        (programs / name).write_text(f'#!/bin/sh\necho "$@" >> "{marker}"\nexit 1\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # Pillow looks for it once a process.
    return marker
