"""Stand-ins for the operators of a compiled module that an installation lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn


def missing_operator(module: str, framework: str, name: str, cure: str) -> Callable[..., NoReturn]:
    """What stands under an operator's name, so that the module can be imported; it raises when it is called.

    Args:
        module: the module that is asked for the operator, as its `__name__`.
        framework: whose operator it is.
        name: the operator.
        cure: how to get the compiled part.

    Raises:
        AttributeError: the name is private, so that it is no operator's.
    """
    if name.startswith("_"):
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    def missing(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(
            f"the {framework} operator {name!r} needs {framework}'s compiled part, which this installation lacks. "
            f"To get it: {cure}"
        )

    return missing
