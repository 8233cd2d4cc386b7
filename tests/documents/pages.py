"""The pages that users read, and the blocks of code in them, for the tests that run them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {
    str(page.relative_to(ROOT)): page
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
}
"""Path of each page by its name, which is its path in the repository."""
RUN = ("python", "bash")
SHOWN = ("text", "bibtex", "yaml", "toml", "json")
"""Languages of blocks that are run, and of blocks that are shown alone."""


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        language: what stands behind its first fence.
        text: what stands between the fences.
        follows: whether nothing stands between it and the block before.
    """

    language: str
    text: str
    follows: bool

    @property
    def file(self) -> str:
        """Path of the file that the block is, by its first line; empty if it is none."""
        found = re.match(r"# ([\w./-]+\.\w+)\n", self.text)
        return found[1] if found else ""


@dataclass(frozen=True)
class Item:
    """A snippet of Python, or one command of a `bash` block.

    Attributes:
        page: name of its page.
        language: "python" or "bash".
        text: the snippet, or the command with continued lines joined and spaces between words made one.
        printed: what the page shows below it (below the block's last command) as its output; None if nothing.
    """

    page: str
    language: str
    text: str
    printed: str | None = None

    @property
    def is_config(self) -> bool:
        """Whether it is a config of mmengine."""
        return self.language == "python" and re.search(r"^_base_ = ", self.text, flags=re.MULTILINE) is not None


def read_page(name: str) -> str:
    """The text of a page."""
    return PAGES[name].read_text(encoding="utf-8")


def read_blocks(name: str) -> list[Block]:
    """The blocks of code of a page, in order; those within a list without its indentation."""
    page = read_page(name)
    blocks, end = [], 0
    for found in re.finditer(r"^( *)```(\S*)[^\n]*\n(.*?)^ *```$", page, flags=re.DOTALL | re.MULTILINE):
        indent, language, text = found.groups()
        follows = bool(blocks) and not page[end : found.start()].strip()
        blocks.append(Block(language, re.sub(f"^{indent}", "", text, flags=re.MULTILINE), follows))
        end = found.end()
    return blocks


def split_commands(block: str) -> list[str]:
    """The commands of a `bash` block, without comments."""
    lines = block.replace("\\\n", " ").strip().splitlines()
    return [" ".join(line.split()) for line in lines if line.strip() and not line.lstrip().startswith("#")]


def read_items(name: str) -> list[Item]:
    """What a page has to run, in order; not the blocks that are files."""
    items = []
    for block, after in pairwise([*read_blocks(name), Block("", "", False)]):
        printed = after.text if after.language == "text" and after.follows else None
        if block.file:
            continue
        if block.language == "python":
            items.append(Item(name, block.language, block.text, printed))
        elif block.language == "bash":
            *commands, last = split_commands(block.text)
            items += [Item(name, block.language, command) for command in commands]
            items.append(Item(name, block.language, last, printed))
    return items


def read_tables(name: str) -> list[list[str]]:
    """The rows of a page's tables, heads included, as lists of cells."""
    rows = [line for line in read_page(name).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
