"""The plugin for OpenMMLab: FocalNet in mmengine's registry, and what its packages need on today's PyTorch.

A config needs one line: `custom_imports = dict(imports=["focalnet_backbone.openmmlab"])`.
"""

from focalnet_backbone.openmmlab.optional import defer_optional_packages  # isort: skip

defer_optional_packages()

from focalnet_backbone.openmmlab.compat import (  # noqa: E402
    allow_runner_checkpoints,
    format_configs_once,
    lend_modules,
)
from focalnet_backbone.openmmlab.loading import load_safely  # noqa: E402

lend_modules()
allow_runner_checkpoints()
format_configs_once()
load_safely()

from focalnet_backbone.openmmlab.backbone import FocalNet  # noqa: E402
from focalnet_backbone.openmmlab.classifier import load_classifier  # noqa: E402
from focalnet_backbone.openmmlab.listing import leave_out_hidden  # noqa: E402
from focalnet_backbone.openmmlab.names import offer_configs  # noqa: E402
from focalnet_backbone.openmmlab.optimizer import LayerDecayOptimWrapperConstructor  # noqa: E402
from focalnet_backbone.openmmlab.own_data import RenumberLoadedLabels  # noqa: E402
from focalnet_backbone.openmmlab.photos import read_photos_alike  # noqa: E402
from focalnet_backbone.openmmlab.published import take_published_detectors  # noqa: E402
from focalnet_backbone.openmmlab.resume import AtomicLocalBackend, ExactResumeHook  # noqa: E402
from focalnet_backbone.openmmlab.stopping import LastingCheckpointHook, StopHook  # noqa: E402

leave_out_hidden()
offer_configs()
read_photos_alike()
take_published_detectors()

__all__ = [
    "AtomicLocalBackend",
    "ExactResumeHook",
    "FocalNet",
    "LastingCheckpointHook",
    "LayerDecayOptimWrapperConstructor",
    "RenumberLoadedLabels",
    "StopHook",
    "load_classifier",
]
