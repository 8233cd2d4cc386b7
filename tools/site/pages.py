"""Pages of the site that are no files in `docs`, for mkdocs, which calls these functions while it builds.

The front page, the page for contributors and the changes are those of the repository; the reference has a page for each
room of the package, made of the docstrings of its modules.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "focalnet_backbone"
FROM_ROOT = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files of the repository's root that are pages of the site, and what they are called there."""


def reference_pages() -> dict[str, str]:
    """Text of each page of the reference by its name: one for the package's own modules, and one a room."""
    pages = {}
    for room in (PACKAGE, *sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))):
        modules = sorted(room.glob("*.py") if room == PACKAGE else room.rglob("*.py"))
        names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in modules]
        title = ".".join(room.relative_to(ROOT).parts)
        references = [f"::: {name}\n" for name in names if not name.split(".")[-1].startswith("_")]
        pages[f"reference/{room.name}.md"] = "\n".join([f"# {title}\n", *references])
    return pages


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the reference at the end of the navigation."""
    config.nav = [*(config.nav or []), {"Reference": list(reference_pages())}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to the files in `docs`."""
    pages = {page: (ROOT / source).read_text(encoding="utf-8") for source, page in FROM_ROOT.items()}
    for page, text in {**pages, **reference_pages()}.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links between the repository's root and `docs` lead to the same pages within the site."""
    above = "" if page.file.src_uri in FROM_ROOT.values() else "../" * (page.file.src_uri.count("/") + 1)
    if not above:
        markdown = markdown.replace("](docs/", "](")
    for source, target in FROM_ROOT.items():
        markdown = re.sub(rf"\]\({re.escape(above + source)}(?=[)#])", f"]({target}", markdown)
    return markdown
