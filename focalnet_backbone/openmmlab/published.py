"""Published DINO detectors wherever mmengine loads weights: `load_from`, `init_cfg`, `init_detector`, inferencers."""

from __future__ import annotations

import functools
import logging
import re
import sys
from collections.abc import Callable, Mapping
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, initialize, is_model_wrapper
from mmengine.runner import CheckpointLoader, checkpoint
from torch import nn

from focalnet_backbone.checkpoints.detector import fit_dino, is_dino
from focalnet_backbone.checkpoints.dino import recognise_dino
from focalnet_backbone.checkpoints.published import DETECTORS
from focalnet_backbone.checkpoints.sources import open_source

DINO_MODULE = "mmdet.models.detectors.dino"


class _WhenImported(MetaPathFinder):
    """Waits for mmdetection's DINO, which this package does not import by itself."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname != DINO_MODULE:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_amend(module: ModuleType) -> None:
                execute(module)
                _keep_pretrained(module)

            spec.loader.exec_module = execute_and_amend
        return spec


def _keep_pretrained(module: ModuleType) -> None:
    """Let DINO keep the weights that its own `init_cfg` names: mmdetection initialises its transformer after them."""
    original = module.DINO.init_weights

    @functools.wraps(original)
    def init_weights(self: nn.Module) -> None:
        original(self)
        cfgs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg or {}]
        pretrained = [cfg for cfg in cfgs if cfg.get("type") == "Pretrained"]
        if pretrained:
            initialize(self, pretrained)

    module.DINO.init_weights = init_weights


def take_published_detectors() -> None:
    """Let mmengine load files of FocalNet-DINO and detrex into mmdetection's DINO, and find them by name.

    Heads and label embedding of other classes than the model's are left out, for fine-tuning; anything else that does
    not fit is a `CheckpointError`. Does nothing the second time.
    """
    if hasattr(checkpoint.load_state_dict, "__wrapped__"):
        return
    checkpoint.load_state_dict = _convert_before(checkpoint.load_state_dict)
    CheckpointLoader.register_scheme([f"{re.escape(name)}$" for name in DETECTORS], _open_published)
    if DINO_MODULE in sys.modules:
        _keep_pretrained(sys.modules[DINO_MODULE])
    else:
        sys.meta_path.insert(0, _WhenImported())


def _open_published(filename: str, map_location: Any = None) -> Any:
    return open_source(filename).checkpoint


def _convert_before(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def load(module: nn.Module, state_dict: Mapping[str, Any], strict: bool = False, logger: Any = None) -> None:
        model = module
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        weights = recognise_dino(state_dict) if is_dino(model) else None
        if weights is None or weights.origin == "mmdetection":
            return original(module, state_dict, strict, logger)
        fitted, report = fit_dino(model, weights, any_classes=True)
        print_log(str(report), logger="current", level=logging.WARNING if report.missing else logging.INFO)
        return original(model, fitted, strict, logger)

    return load
