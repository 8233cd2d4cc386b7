"""What a training step keeps for its backward pass, and the most memory that anything takes."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn


def saved_bytes(model: nn.Module, run: Callable[[], object]) -> int:
    """Bytes that a call keeps for the backward pass, each piece of memory once, the model's parameters left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            # Held until the end, so that its address cannot come up again.
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = run()
    total = sum(storage.nbytes() for storage in kept.values())
    del result
    return total


def peak_bytes(run: Callable[[], object], device: torch.device) -> int | None:
    """Most bytes taken during a call, beyond what was taken before it; None where the system cannot tell.

    On the GPU that is memory of tensors, on the CPU memory of the process, which Linux reports.
    """
    gc.collect()
    if device.type == "cuda":
        # Once before, so that what libraries take for themselves at their first call is not counted.
        run()
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        # Memory that was freed goes back to the system, and the peak starts anew.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return None
    before = _status_bytes("VmRSS")
    run()
    return _status_bytes("VmHWM") - before


def _status_bytes(key: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{key}:\s+(\d+) kB", status)[1]) * 1024
