"""Configs of both kinds, YAML and LazyConfig, as jobs for the trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from focalnet_backbone.detectron2.jobs.from_lazy import LazyJob
from focalnet_backbone.detectron2.jobs.from_yaml import YamlJob, load_yaml
from focalnet_backbone.detectron2.jobs.job import Job, first_line

__all__ = ["Job", "LazyJob", "YamlJob", "first_line", "load_job", "load_yaml"]


def load_job(config: str | Path, overrides: Sequence[str] = ()) -> Job:
    """Load a config: YAML by its ending, else a LazyConfig.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it, or an override, is wrong.
    """
    if not Path(config).is_file():
        raise FileNotFoundError(f"no config at {config}")
    return (YamlJob if Path(config).suffix in (".yaml", ".yml") else LazyJob)(config, overrides)
