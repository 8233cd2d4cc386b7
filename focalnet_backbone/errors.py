"""How the tools say what is wrong: in one line, with the exit status of a wrong argument."""

from __future__ import annotations

import sys


def one_line(error: BaseException) -> str:
    """An error's message in one line; without the traceback in it if it comes from a process that loads images."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if "Traceback (most recent call last)" in text:
        text = text.strip().splitlines()[-1]
    return " ".join(text.split())


def fail(tool: str, error: BaseException) -> int:
    """Print the error behind the tool's name, as argparse does. Returns the exit status."""
    print(f"{tool}: {one_line(error)}", file=sys.stderr)
    return 2
