"""What OpenMMLab's packages need to run on today's PyTorch without compiled mmcv."""

from __future__ import annotations

import functools
import sys
from collections import OrderedDict
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import mmengine.config.config
import numpy as np
import torch
from mmengine.logging import HistoryBuffer

MULTIMODAL = "mmpretrain.utils.dependency"
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


class _MultimodalFinder(MetaPathFinder):
    """Finds the module in which mmpretrain decides whether its models of images and text can be imported."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname == MULTIMODAL else None
        if spec is not None:
            spec.loader = _MultimodalLoader(fullname, spec.origin)
        return spec


class _MultimodalLoader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        _leave_out_multimodal(module)


def _leave_out_multimodal(module: ModuleType) -> None:
    """Let mmpretrain do without its models of images and text, if transformers lacks what they are made of.

    It asks for transformers 4.28 or newer, and takes functions from it that version 5 does not have. The text tells
    whether they are there, where an import would cost each start of mmdetection five seconds.
    """
    transformers = find_spec("transformers")
    for folder in (transformers and transformers.submodule_search_locations) or ():
        source = Path(folder, "modeling_utils.py")
        if source.is_file() and "apply_chunking_to_forward" in source.read_text(encoding="utf-8"):
            return
    module.WITH_MULTIMODAL = False


def allow_mmpretrain() -> None:
    """Let `mmpretrain.models` be imported beside a transformers that is too new for a part of it."""
    if MULTIMODAL in sys.modules:
        _leave_out_multimodal(sys.modules[MULTIMODAL])
    elif not any(isinstance(finder, _MultimodalFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _MultimodalFinder())


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
