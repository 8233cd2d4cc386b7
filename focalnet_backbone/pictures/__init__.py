"""What a network sees, as numbers and as pictures."""

from focalnet_backbone.pictures.draw import draw_gates, draw_kernels, draw_modulators
from focalnet_backbone.pictures.modulation import BlockKernels, ModulationView, read_kernels, watch_modulation

__all__ = [
    "BlockKernels",
    "ModulationView",
    "draw_gates",
    "draw_kernels",
    "draw_modulators",
    "read_kernels",
    "watch_modulation",
]
