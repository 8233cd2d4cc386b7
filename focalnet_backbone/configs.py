"""The configs that this package carries, by name, and which framework a config is for.

They are in the folder `.mim`, where OpenMMLab's programs look for a package's configs and its list of models.
"""

from __future__ import annotations

import ast
import fnmatch
from pathlib import Path

from focalnet_backbone.system.spelling import closest

FOLDER = Path(__file__).parent / ".mim" / "configs"
"""Holds a folder of configs for each host: detectron2, mmdet, mmpretrain, mmseg."""

SUFFIXES = (".py", ".yaml", ".yml")

_NO_SETUP = ("_*", "Base-*", "mask_rcnn_focalnet.py", "metafile.yaml")
"""What lies beside the configs of whole set-ups: their bases, and what is said of them."""


_OF_MMENGINE = frozenset({"_base_", "default_scope", "read_base"})
_OF_LAZY = frozenset({"*", "model", "dataloader", "optimizer", "lr_multiplier", "train"})
"""What tells Python files of either kind from others, among the names in them."""


def list_configs(host: str = "*") -> list[str]:
    """Names of the set-ups, such as `"mmseg/upernet_focalnet_sample.py"`.

    Args:
        host: "detectron2", "mmdet", "mmpretrain" or "mmseg" for those of one framework, or a pattern.
    """
    found = [path for path in FOLDER.glob("*/*") if path.suffix in SUFFIXES and fnmatch.fnmatch(path.parent.name, host)]
    setups = [path for path in found if not any(fnmatch.fnmatch(path.name, pattern) for pattern in _NO_SETUP)]
    return sorted(path.relative_to(FOLDER).as_posix() for path in setups)


def find_config(name: str, host: str = "*") -> Path:
    """The file of a set-up.

    Args:
        name: its name, with or without its host's folder and its suffix.
        host: the framework that it is for, where the name does not tell.

    Raises:
        FileNotFoundError: there is none of that name; the message has the nearest.
        ValueError: there are several.
    """
    wanted = name.removeprefix("focalnet_backbone::")
    names = list_configs(host)
    forms = {
        setup: {form for path in (Path(setup), Path(Path(setup).name)) for form in _forms(path)} for setup in names
    }
    found = [setup for setup in names if wanted in forms[setup]]
    if not found:
        guess = closest(wanted, {form for setup in names for form in forms[setup]})
        raise FileNotFoundError(f"this package has no config {name!r}.{guess}")
    if len(found) > 1:
        raise ValueError(f"{name!r} may be any of {', '.join(found)}; name one of them")
    return FOLDER / found[0]


def _forms(path: Path) -> tuple[str, str]:
    return path.as_posix(), path.with_suffix("").as_posix()


def open_config(name: str | Path) -> Path:
    """A config file: one of the user's if there is a file of that name, else one that this package carries.

    Raises `FileNotFoundError` or `ValueError` as `find_config` does.
    """
    if Path(name).is_file():
        return Path(name)
    try:
        return find_config(str(name))
    except FileNotFoundError as error:
        also = "" if Path(name).is_absolute() else f", and {error}"
        raise FileNotFoundError(f"no config at {name}{also}") from None


def describe_config(path: Path) -> str:
    """The line that a config opens with, on what it trains; empty if there is none."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    elif not text.startswith("#"):
        return ""
    return text.strip("# \n").split("\n")[0]


def is_mmengine(config: Path) -> bool:
    """Whether a config is one of mmengine's: Python that names a base or a default scope, or reads its base.

    Raises `ValueError` if it is no Python, or has no part of a config in it.
    """
    if config.suffix != ".py":
        return False
    try:
        nodes = list(ast.walk(ast.parse(config.read_text(encoding="utf-8"), str(config))))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{config} is no valid config: {error}") from error
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    names |= {alias.asname or alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    if not names & {*_OF_MMENGINE, *_OF_LAZY}:
        raise ValueError(
            f"{config} is no config: it names neither _base_ nor default_scope, as those of OpenMMLab do, nor model, "
            "dataloader or train, as a LazyConfig of detectron2"
        )
    return bool(names & _OF_MMENGINE)


def require_mmengine(config: Path, purpose: str) -> None:
    """Raise `ValueError` unless a config is one of mmengine's, with what needs that, such as `"races run in it"`."""
    if not is_mmengine(config):
        known_by = ", as it names neither _base_ nor default_scope" if config.suffix == ".py" else ""
        raise ValueError(f"{config} is a config of detectron2{known_by}; {purpose}")
