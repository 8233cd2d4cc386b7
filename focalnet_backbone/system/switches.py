"""Switches: arguments that are True or False."""

from __future__ import annotations

from typing import Any


def check_switch(name: str, value: Any) -> bool:
    """The value, which must be True or False. Raises `TypeError` that names the argument.

    Words that a form or a command line passes on, such as "no", would otherwise count as True.
    """
    if isinstance(value, bool):
        return value
    raise TypeError(f"{name} must be True or False, got {value!r}")
