"""What OpenMMLab's packages need to run on today's PyTorch without compiled mmcv."""

from __future__ import annotations

import functools
import sys
from collections import OrderedDict
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any

import mmengine.config.config
import numpy as np
import torch
from mmengine.logging import HistoryBuffer

LENT = {
    "mmcv._ext": "operators.py",
    **dict.fromkeys(("panopticapi", "panopticapi.evaluation", "panopticapi.utils"), "panoptic.py"),
}
"""Modules of others that this package has a part of, and the files that it is in."""
STATISTICS = ("min", "max", "current", "mean")


class _LentModules(MetaPathFinder):
    """Finds modules that this package lends, asked only when there is none where Python looks first."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of a lent module; None for any other."""
        if fullname not in LENT:
            return None
        places = [] if fullname == "panopticapi" else None
        file = Path(__file__).with_name(LENT[fullname])
        return spec_from_file_location(fullname, file, submodule_search_locations=places)


def lend_modules() -> None:
    """Let `mmcv.ops` be imported where mmcv lacks its compiled part, and `panopticapi` where that is missing.

    A compiled mmcv and an installed panopticapi stay as they are.
    """
    if not any(isinstance(finder, _LentModules) for finder in sys.meta_path):
        sys.meta_path.append(_LentModules())


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


def format_configs_once() -> None:
    """Let mmengine format a config once, and not for its log, the working folder and each checkpoint anew: yapf takes
    seconds for a detector's. Does nothing the second time."""
    module = mmengine.config.config
    if not hasattr(module.FormatCode, "__wrapped__"):
        module.FormatCode = _remember_texts(module.FormatCode)


def _remember_texts(original: Callable[..., tuple[str, bool]], most: int = 8) -> Callable[..., tuple[str, bool]]:
    """`FormatCode` of yapf, with the texts that it formatted last."""
    known: OrderedDict[str, tuple[str, bool]] = OrderedDict()

    @functools.wraps(original)
    def format_code(text: str, **options: Any) -> tuple[str, bool]:
        key = f"{text}{options}"
        if key not in known:
            known[key] = original(text, **options)
            if len(known) > most:
                known.popitem(last=False)
        return known[key]

    return format_code
