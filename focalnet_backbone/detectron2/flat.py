"""A config of detectron2 as one file without bases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from focalnet_backbone import __version__
from focalnet_backbone.detectron2.jobs import load_job
from focalnet_backbone.detectron2.jobs.from_lazy import LazyJob
from focalnet_backbone.detectron2.own_data import use_own_data
from focalnet_backbone.own_data import OwnData
from focalnet_backbone.system.command_line import printable


def flatten(path: Path, values: Sequence[str] = (), own_data: OwnData | None = None) -> str:
    """The text of a config that stands alone, as YAML.

    Args:
        path: YAML or LazyConfig.
        values: `key=value`, which replace the config's.
        own_data: what takes the place of the config's data; what that changes is printed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it, or a value, is wrong.
    """
    lazy = path.suffix == ".py"
    job = load_job(path, values if lazy else [word for value in values for word in value.split("=", 1)])
    if own_data:
        use_own_data(job, own_data)
        print("\n".join(f"own data: {printable(note)}" for note in job.notes))
    text = OmegaConf.to_yaml(job.cfg) if isinstance(job, LazyJob) else job.cfg.dump()
    return f"# {path.stem}, written whole by focalnet-backbone {__version__}.\n{text}"
