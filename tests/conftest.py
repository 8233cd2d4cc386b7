"""Fixtures and helpers that several test files share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

DATA = Path(__file__).parent / "data"
REFERENCE_KNOBS = {
    "use_postln": "use_post_layernorm",
    "use_postln_in_modulation": "use_post_layernorm_in_modulation",
    "in_chans": "num_channels",
    "num_classes": "num_labels",
}


def load_golden(name: str) -> dict[str, Any]:
    """The reference vector `tests/data/golden/NAME.pt`."""
    return torch.load(DATA / "golden" / f"{name}.pt", weights_only=True)


def knobs_from_reference(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Reference keyword arguments under our names, `out_indices` (which counts stages from 0 there) left out."""
    return {REFERENCE_KNOBS.get(k, k): v for k, v in kwargs.items() if k != "out_indices"}
