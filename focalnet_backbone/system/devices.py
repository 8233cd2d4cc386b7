"""The device that a command line or an argument names."""

from __future__ import annotations

import torch


def choose_device(name: str | torch.device | None = None) -> torch.device:
    """A device that models can be run on: `name`, or the machine's accelerator if there is one, else the CPU.

    Raises `ValueError`, which says what is allowed here, for a device that there is not or that holds no values.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name is None:
        return torch.device(accelerator.type) if accelerator else torch.device("cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is not None and device.type == "cpu":
        return device
    count = torch.accelerator.device_count() if accelerator else 0
    if device is not None and accelerator and device.type == accelerator.type and (device.index or 0) < count:
        return device
    raise ValueError(f"device must be {_allowed(accelerator, count)}, got {str(name)!r}")


def _allowed(accelerator: torch.device | None, count: int) -> str:
    if accelerator is None:
        return "cpu (there is no GPU)"
    numbered = f" or {accelerator.type}:0 to {accelerator.type}:{count - 1}" if count > 1 else ""
    return f"cpu or {accelerator.type}{numbered}"
