"""Freed memory is kept where the C library would hand it back, unless the user says otherwise."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from focalnet_backbone.system import memory

PROGRAM = """
import resource, sys
from focalnet_backbone.system.memory import keep_freed_memory

def churn():
    # Larger than what glibc keeps by its own settings, once it has seen how large they are.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        held = [bytearray(24 * 2**20) for _ in range(6)]
        del held
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

churn()
plain = churn()
kept = keep_freed_memory()
churn()
print(kept, plain, churn())
"""


def run(**environment: str) -> tuple[str, int, int]:
    program = [sys.executable, "-c", PROGRAM]
    output = subprocess.run(program, env=environment, capture_output=True, text=True, check=True).stdout
    kept, before, after = output.split()
    return kept, int(before), int(after)


def test_freed_memory_is_used_again_without_asking_the_system():
    kept, before, after = run()
    assert kept == str(platform.libc_ver()[0] == "glibc")
    if kept == "True":
        assert before > 50_000
        assert after < before / 50


@pytest.mark.parametrize(
    "environment",
    [{"MALLOC_ARENA_MAX": "1"}, {"GLIBC_TUNABLES": "glibc.malloc.check=0"}, {"LD_PRELOAD": ""}],
    ids=lambda environment: next(iter(environment)),
)
def test_the_users_own_settings_stand(environment, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert not memory.keep_freed_memory()


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not memory.keep_freed_memory()
