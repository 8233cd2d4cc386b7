"""Configs of both kinds, YAML and LazyConfig, as jobs for the trainer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from focalnet_backbone.detectron2.jobs.from_lazy import LAZY_MARK, LazyJob
from focalnet_backbone.detectron2.jobs.from_yaml import YamlJob, load_yaml
from focalnet_backbone.detectron2.jobs.job import Job

__all__ = ["Job", "LazyJob", "YamlJob", "load_job", "load_yaml"]


def load_job(config: str | Path, overrides: Sequence[str] = ()) -> Job:
    """Load a config: YAML by its ending, else a LazyConfig.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it, or an override, is wrong.
    """
    config = Path(config)
    if not config.is_file():
        raise FileNotFoundError(f"no config at {config}")
    if config.suffix not in (".yaml", ".yml"):
        return LazyJob(config, overrides)
    _refuse_values_of_lazy(config)
    return YamlJob(config, overrides)


def _refuse_values_of_lazy(config: Path) -> None:
    """Raise `ValueError` for a YAML file that tells the values of a LazyConfig, with the path of its source."""
    text = config.read_text(encoding="utf-8", errors="replace")
    if re.search(r"\b_target_['\"]?\s*:", text):
        noted = text.partition("\n")[0]
        source = noted.removeprefix(LAZY_MARK) if noted.startswith(LAZY_MARK) else "its .py"
        raise ValueError(f"{config} tells the values of a LazyConfig, which cannot be read back; give {source} instead")
