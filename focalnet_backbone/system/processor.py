"""The processor: its name, and the instruction sets on which the speed of matrix products depends."""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path

_INSTRUCTION_SETS = re.compile(
    r"avx2|fma|f16c|avx_vnni|avx512(f|_vnni|_bf16|_fp16)|amx_(tile|int8|bf16|fp16)"  # of x86
    r"|asimd|asimdhp|asimddp|i8mm|bf16|sve|sve2|svebf16|sme"  # of ARM
)


@cache
def processor_name() -> str:
    """What the processor calls itself, such as "Intel(R) Xeon(R) Platinum 8488C"."""
    found = re.search(r"^model name\s*: (.*)", _cpuinfo(), re.M)
    return found[1] if found else platform.processor() or platform.machine()


@cache
def instruction_sets() -> tuple[str, ...]:
    """Those vector and matrix instruction sets that it reports, by Linux' names, in alphabetical order.

    None where the system does not tell.
    """
    found = re.search(r"^(?:flags|Features)\s*: (.*)", _cpuinfo(), re.M)
    flags = found[1].split() if found else []
    return tuple(sorted(flag for flag in flags if _INSTRUCTION_SETS.fullmatch(flag)))


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
