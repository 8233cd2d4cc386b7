"""What the command lines of the tools have in common: how they read numbers, and say what is wrong in one line."""

from __future__ import annotations

import argparse
import sys


def positive(text: str) -> int:
    """A `type` of argparse's: whole numbers of at least 1."""
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


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
