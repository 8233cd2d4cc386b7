"""What becomes of workers when the program that started them is killed."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from focalnet_backbone.system.interruption import leave_interrupts_to_parent

WORKER = """
import os, pathlib, sys, time
from focalnet_backbone.system.processes import is_distributed
assert is_distributed()
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(60)
"""
LAUNCHER = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WORKER!r}, sys.argv[1]])"


def is_alive(process: str) -> bool:
    try:
        return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to end a process with its parent")
def test_workers_end_with_a_launcher_that_is_killed(tmp_path, monkeypatch):
    address = {"MASTER_ADDR": "localhost", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "none"}
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", **address}.items():
        monkeypatch.setenv(name, value)
    note = tmp_path / "worker"
    with subprocess.Popen([sys.executable, "-c", LAUNCHER, str(note)]) as launcher:
        until = time.monotonic() + 30
        while not (note.is_file() and note.read_text()) and time.monotonic() < until:
            time.sleep(0.02)
        worker = note.read_text()
        assert is_alive(worker)
        launcher.kill()
    until = time.monotonic() + 10
    while is_alive(worker) and time.monotonic() < until:
        time.sleep(0.02)
    assert not is_alive(worker)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to end a process with its parent")
def test_a_loaders_worker_ends_with_its_parent_in_the_midst_of_a_long_call():
    heard, told = os.pipe()
    parent = os.fork()
    if not parent:
        if not os.fork():
            leave_interrupts_to_parent()
            os.write(told, str(os.getpid()).encode())
            sum(range(10**12))  # For hours, without a look at signals.
        time.sleep(60)
        os._exit(0)
    os.close(told)
    worker = int(os.read(heard, 20))
    os.kill(worker, signal.SIGTERM)  # As a scheduler does to all, when the parent alone is to end.
    assert not select.select([heard], [], [], 0.3)[0]
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    try:
        assert select.select([heard], [], [], 10)[0]  # Whose other end is closed with the worker.
    finally:
        os.close(heard)
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
