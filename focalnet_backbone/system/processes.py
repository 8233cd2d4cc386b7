"""Programs that a launcher starts several times over."""

from __future__ import annotations

import os

from focalnet_backbone.system.interruption import end_with_parent


def is_distributed() -> bool:
    """Whether a launcher such as torchrun started this process, as one of several or the only one.

    Such a process ends when its launcher dies. Half of a launcher's environment (`RANK` alone, `WORLD_SIZE` alone, or
    both for a single process) is taken for leaked from elsewhere.

    Raises `ValueError` if it is one of several, but does not know where they meet.
    """
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        return False
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        if os.environ["WORLD_SIZE"] == "1":
            return False
        raise ValueError(
            f"RANK and WORLD_SIZE are set, as for one of {os.environ['WORLD_SIZE']} processes, but not "
            f"{' and '.join(missing)}; start them with torchrun, or unset RANK and WORLD_SIZE"
        )
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent()
    return True


def is_first() -> bool:
    """Whether this is the process that speaks for all."""
    return os.environ.get("RANK", "0") == "0"
