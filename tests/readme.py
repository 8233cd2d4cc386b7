"""The code blocks of the README, for the tests that run them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]


def read_section(heading: str) -> str:
    """The text below a `## ` heading, up to the next one."""
    _, found, rest = (ROOT / "README.md").read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    assert found, f"the README has no section {heading!r}"
    return rest.partition("\n## ")[0]


def code_blocks(heading: str) -> list[tuple[str, str]]:
    """Language and content of each code block of a section, in order."""
    blocks = re.findall(r"```(\w+)\n(.*?)```", read_section(heading), flags=re.DOTALL)
    assert blocks, f"the README's section {heading!r} has no code"
    return blocks


def split_commands(block: str) -> list[list[str]]:
    """The commands of a `bash` block as lists of words, with continued lines joined."""
    return [shlex.split(line) for line in block.replace("\\\n", "").strip().splitlines()]
