"""Numbers as arguments: of the right kind and within their limits, or an error that names the argument."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any


def is_int(value: Any) -> bool:
    """Whether it is a whole number; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def as_int(name: str, value: Any, minimum: int) -> int:
    """The value as an int. Raises `TypeError` if it is no whole number, `ValueError` if it is below the minimum."""
    if not is_int(value):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return int(value)


def as_float(name: str, value: Any, *, low: float = 0.0, high: float = float("inf"), open_low: bool = False) -> float:
    """The value as a finite float from `low`, which it may not have itself if `open_low`, to `high`.

    Raises `TypeError` if it is no number, `ValueError` if it lies outside.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not low <= value <= high or value == float("inf") or (open_low and value == low):
        allowed = f"above {low}" if open_low else f"at least {low}"
        limit = "" if high == float("inf") else f" and at most {high}"
        raise ValueError(f"{name} must be {allowed}{limit}, got {value}")
    return float(value)


def as_ints(name: str, value: Any, minimum: int, maximum: float = float("inf")) -> list[int]:
    """The values, one a stage, as a list of ints. Raises as `as_int` does, also above the maximum."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of ints, one a stage, got {value!r}")
    value = list(value)
    for item in value:
        if not is_int(item):
            raise TypeError(f"{name} must be a list of ints, one a stage, got {value!r}")
        if item < minimum:
            raise ValueError(f"every entry of {name} must be at least {minimum}, got {value}")
        if item > maximum:
            raise ValueError(f"every entry of {name} must be at most {maximum}, got {value}")
    return [int(item) for item in value]
