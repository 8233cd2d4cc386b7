"""The code blocks of the README and of the pages in `docs`, for the tests that run them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def read_section(heading: str) -> str:
    """The text below a `## ` heading of the README up to the next one, or the page in `docs` with that title."""
    readme, *pages = (page.read_text(encoding="utf-8") for page in PAGES)
    _, found, rest = readme.partition(f"\n## {heading}\n")
    if found:
        return rest.partition("\n## ")[0]
    found = [page for page in pages if page.startswith(f"# {heading}\n")]
    assert found, f"neither a section of the README nor a page in docs: {heading!r}"
    return found[0]


def code_blocks(heading: str) -> list[tuple[str, str]]:
    """Language and content of each code block of a section, in order."""
    blocks = re.findall(r"```(\w+)\n(.*?)```", read_section(heading), flags=re.DOTALL)
    assert blocks, f"the README's section {heading!r} has no code"
    return blocks


def split_commands(block: str) -> list[list[str]]:
    """The commands of a `bash` block as lists of words, with continued lines joined."""
    return [shlex.split(line) for line in block.replace("\\\n", "").strip().splitlines()]
