"""Large packages that OpenMMLab's modules import for a few of their models: imported when such a model is made.

transformers, timm, scikit-learn and matplotlib would cost each start of a training seconds, and each of its processes
memory.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType, SimpleNamespace
from typing import Any

PACKAGES = ("transformers", "timm", "sklearn", "matplotlib")
DEFER = (
    "mmdet.datasets.transforms.text_transformers",
    "mmdet.models.dense_heads.atss_vlfusion_head",
    "mmdet.models.dense_heads.paa_head",
    "mmdet.models.language_models.bert",
    "mmdet.models.task_modules.tracking.interpolation",
    "mmdet.utils.mot_error_visualize",
    "mmengine.optim.optimizer.builder",
    "mmseg.models.backbones.timm_backbone",
)
"""Modules that take names from those packages when they are imported, and use them later."""
FUSION = "mmdet.models.utils.vlfuse_helper"
"""The module whose classes are derived from transformers', where that has all that it takes."""
MULTIMODAL = "mmpretrain.utils.dependency"
"""The module in which mmpretrain decides whether its models of images and text can be imported."""


class Later:
    """What a package holds under a name, imported when it is called or its attributes are asked for.

    Args:
        name: its full name, such as "transformers.BertModel".
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(resolve_name(self._name), name)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call it."""
        return resolve_name(self._name)(*arguments, **keywords)


def make_adafactor(params: Any, **settings: Any) -> Any:
    """transformers' Adafactor for mmengine's registry, which takes functions, and names the parameters by the first of
    their arguments."""
    return resolve_name("transformers.Adafactor")(params, **settings)


class _Imports:
    """Stands in for `__import__` in one module, and defers what it imports of some packages.

    Args:
        refuse: packages that are taken for missing.
    """

    def __init__(self, refuse: Sequence[str] = ()) -> None:
        self.refuse = refuse
        self.over = False

    def __call__(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        package, _, inner = name.partition(".")
        if self.over or level or package not in PACKAGES or not _is_there(package):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        if package in self.refuse:
            raise ImportError(f"{package} lacks what is needed", name=package)
        if not fromlist and not inner:
            return Later(name)
        # `import a.b as c` takes b from a.
        wanted = [f"{name}.{each}" for each in fromlist] if fromlist else [name]
        found = {each.rpartition(".")[2]: Later(each) for each in wanted}
        return SimpleNamespace(**{**found, **({"Adafactor": make_adafactor} if "Adafactor" in found else {})})


def _is_there(package: str) -> bool:
    return (sys.modules[package] if package in sys.modules else find_spec(package)) is not None


class _Loader(SourceFileLoader):
    """Runs a module with imports of its own."""

    def exec_module(self, module: ModuleType) -> None:
        imports = _Imports(["transformers"] if self.name == FUSION and not _has_parts_of_text_models() else [])
        if self.name in DEFER or imports.refuse:
            # Of this module alone: Python takes `__import__` from what a module has for built-in names.
            module.__dict__["__builtins__"] = {**vars(builtins), "__import__": imports}
        super().exec_module(module)
        imports.over = True
        if self.name == MULTIMODAL:
            _leave_out_multimodal(module)


class _Finder(MetaPathFinder):
    """Finds the modules that are run otherwise."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of such a module; None for any other."""
        if fullname not in (*DEFER, FUSION, MULTIMODAL):
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin)
        return spec


def _has_parts_of_text_models() -> bool:
    """Whether transformers has the functions that mmdetection's and mmpretrain's models of text are made of.

    Version 5 does not have them. The text tells, where an import would cost seconds.
    """
    transformers = find_spec("transformers")
    for folder in (transformers and transformers.submodule_search_locations) or ():
        source = Path(folder, "modeling_utils.py")
        if source.is_file() and "apply_chunking_to_forward" in source.read_text(encoding="utf-8"):
            return True
    return False


def _leave_out_multimodal(module: ModuleType) -> None:
    """Let mmpretrain do without its models of images and text, if transformers lacks what they are made of.

    It asks for transformers 4.28 or newer alone.
    """
    if not _has_parts_of_text_models():
        module.__dict__["WITH_MULTIMODAL"] = False


def defer_optional_packages() -> None:
    """Let OpenMMLab's modules that are imported from now on import large packages when they need them, and mmpretrain
    do without a part of it where transformers is too new for that."""
    if MULTIMODAL in sys.modules:
        _leave_out_multimodal(sys.modules[MULTIMODAL])
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
