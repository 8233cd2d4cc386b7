"""What OpenMMLab's packages need to run on today's PyTorch without compiled mmcv."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

EXTENSION = "mmcv._ext"
STATISTICS = ("min", "max", "current", "mean")


class _OperatorsFinder(MetaPathFinder):
    """Finds `mmcv._ext` in `operators.py`, asked only when there is no compiled one where Python looks first."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname != EXTENSION:
            return None
        return spec_from_file_location(EXTENSION, Path(__file__).with_name("operators.py"))


def provide_operators() -> None:
    """Let `mmcv.ops` be imported where mmcv lacks its compiled part. A compiled mmcv stays as it is."""
    if not any(isinstance(finder, _OperatorsFinder) for finder in sys.meta_path):
        sys.meta_path.append(_OperatorsFinder())


def _statistic(cls: type, name: str) -> Any:
    """Stands in for the `getattr` by which a pickled log buffer names its statistics, and gives nothing else."""
    if cls is not HistoryBuffer or name not in STATISTICS:
        raise ValueError(f"a checkpoint may not ask for {name!r} of {cls!r}")
    return getattr(cls, name)


def allow_runner_checkpoints() -> None:
    """Let `torch.load(weights_only=True)` read what mmengine's runner saves: its log buffers and their arrays.

    The allowed types hold numbers and run no code of the file.
    """
    dtypes = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32)]
    multiarray = np.zeros(0).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            (_statistic, "builtins.getattr"),
            np.ndarray,
            np.dtype,
            *dtypes,
            *((multiarray, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
            *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
        ]
    )
