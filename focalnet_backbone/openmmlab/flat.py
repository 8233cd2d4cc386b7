"""A config of mmengine as one file without bases."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

from focalnet_backbone import __version__
from focalnet_backbone.openmmlab.runners import load_config
from focalnet_backbone.own_data import OwnData

PLUGIN = "focalnet_backbone.openmmlab"


def flatten(path: Path, values: Sequence[str] = (), own_data: OwnData | None = None) -> str:
    """The text of a config that stands alone, and imports this package's plugin.

    Args:
        path: config file.
        values: `key=value`, which replace the config's.
        own_data: what takes the place of the config's data; what that changes is printed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no valid config.
    """
    cfg = load_config(path, dict(map(parse_option, values)), own_data)
    imports = cfg.get("custom_imports") or {}
    wanted = [*dict.fromkeys([PLUGIN, *imports.get("imports", [])])]
    cfg.custom_imports = {"imports": wanted, "allow_failed_imports": False}
    opening = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or path.stem
    comment = "\n".join(f"# {line}".rstrip() for line in opening.split("\n"))
    return f"{comment}\n#\n# Written whole by focalnet-backbone {__version__}.\n{_format(cfg)}"


def parse_option(text: str) -> tuple[str, Any]:
    """A key of a config and the value for it, from `KEY=VALUE`, as mmengine's tools read it.

    Raises `ValueError` if it is none, or its value is none that mmengine can read, such as a `dict(...)`.
    """
    key, is_there, value = text.partition("=")
    if not is_there:
        raise ValueError(f"takes KEY=VALUE, got {text}")
    try:
        return key, DictAction._parse_iterable(value)
    except (AssertionError, RecursionError):
        raise ValueError(f"{key} takes a number, a word, or a list of them such as [1,2], got {value}") from None


def _format(cfg: Config) -> str:
    return cfg.pretty_text.rstrip("\n") + "\n"
