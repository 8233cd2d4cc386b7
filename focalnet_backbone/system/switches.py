"""Switches: arguments that are True or False, and environment variables of a few words."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any


class VariableError(ValueError):
    """An environment variable has a value that it cannot have, or not here; every program tells it in one line."""


def read_variable(name: str, choices: Sequence[str], default: str) -> str:
    """The value of an environment variable, or the default where it is not set or empty. Raises `VariableError`."""
    value = os.environ.get(name) or default
    if value not in choices:
        raise VariableError(f"{name} must be {', '.join(choices[:-1])} or {choices[-1]}, got {value!r}")
    return value


def check_switch(name: str, value: Any) -> bool:
    """The value, which must be True or False. Raises `TypeError` that names the argument.

    Words that a form or a command line passes on, such as "no", would otherwise count as True.
    """
    if isinstance(value, bool):
        return value
    raise TypeError(f"{name} must be True or False, got {value!r}")
