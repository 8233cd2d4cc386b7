"""What projects on detectron2 need where detectron2 lacks its compiled part."""

from __future__ import annotations

import importlib
import sys
import warnings
from types import ModuleType

import detectron2
from pycocotools.cocoeval import COCOeval

EXTENSION = "detectron2._C"
STAND_INS = ("DeformConv", "ModulatedDeformConv", "deform_conv", "modulated_deform_conv")
"""What detectron2 replaces by things that raise when its compiled part cannot be imported."""


def provide_operators() -> None:
    """Let `detectron2._C` be imported, and what needs it work, where it is missing. A compiled one stays as it is."""
    try:
        importlib.import_module(EXTENSION)
    except ModuleNotFoundError:
        pass
    except ImportError as error:
        reason = str(error).splitlines()[0]
        text = f"detectron2's compiled part cannot be loaded, and operators of PyTorch take its place: {reason}"
        warnings.warn(text, stacklevel=2)
    else:
        return
    # Its faster evaluation is compiled. Imported while nothing is provided, the evaluators fall back to pycocotools.
    importlib.import_module("detectron2.evaluation")
    operators = importlib.import_module("focalnet_backbone.detectron2.operators")
    sys.modules[EXTENSION] = operators
    detectron2._C = operators
    importlib.import_module("detectron2.evaluation.fast_eval_api").COCOeval_opt = COCOeval
    _provide_deformable_convolution(operators)


def _provide_deformable_convolution(operators: ModuleType) -> None:
    """Let detectron2's layers convolve by torchvision, in every module that has its stand-ins for them."""
    layers = importlib.import_module("detectron2.layers.deform_conv")
    stand_ins = {name: vars(layers)[name] for name in STAND_INS}
    importlib.reload(layers)
    # The layers call these two, which refuse to work on the CPU.
    layers.deform_conv = operators.deform_conv
    layers.modulated_deform_conv = operators.modulated_deform_conv
    for module in list(sys.modules.values()):
        for name, stand_in in stand_ins.items():
            if getattr(module, "__dict__", {}).get(name) is stand_in:
                setattr(module, name, getattr(layers, name))
