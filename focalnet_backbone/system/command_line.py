"""What the command lines of the tools have in common: how they read numbers, and say what is wrong in one line."""

from __future__ import annotations

import argparse
import sys
import traceback


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
    if not text and error.__traceback__:  # As of an assertion without message: what says most is the code.
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{place.line} ({type(error).__name__}, {place.filename}:{place.lineno})"
    return " ".join(text.split())


def fail(tool: str, error: BaseException) -> int:
    """Print the error behind the tool's name, as argparse does. Returns the exit status."""
    print(f"{tool}: {one_line(error)}", file=sys.stderr)
    return 2
