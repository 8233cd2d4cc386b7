"""What the command lines have in common: how they read arguments, how they end, and that errors are one line."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import errno
import functools
import io
import logging
import multiprocessing
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from focalnet_backbone.system.interruption import Stopped, raise_on_signals
from focalnet_backbone.system.packages import cure, is_known
from focalnet_backbone.system.switches import VariableError

_OF_DISKS = (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT)
"""What is wrong where a file is open and cannot be written on to."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def positive(text: str) -> int:
    """A `type` of argparse's: whole numbers of at least 1."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line as shells make them.

    A file whose name begins with a dash may be named as it is, also where `*.jpg` brings it in. An argument that is
    empty, as of a variable that is not set, is refused by name; only in what a parser leaves to others (`REMAINDER`) is
    it a value. Options may stand between the arguments, also before those that may be missing.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    rests = [action.dest for action in parser._actions if action.nargs == argparse.REMAINDER]
    if not rests:
        _refuse_empty(parser, arguments)
    shielded = _shield_dashes(parser, arguments)
    # argparse gives an optional argument up at the first option that follows those before it.
    whole = rests or "--" in arguments  # Both forbid it.
    parsed = parser.parse_args(shielded) if whole else parser.parse_intermixed_args(shielded)
    left = sum(len(getattr(parsed, rest) or ()) for rest in rests)
    _refuse_empty(parser, arguments[: len(arguments) - left])
    return parsed


def _refuse_empty(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    options = parser._option_string_actions
    for before, argument in zip([None, *arguments], arguments, strict=False):
        option = argument[:-1] if argument.endswith("=") else before
        if argument == "" or (argument.endswith("=") and option in options):
            parser.error(f"argument {option} is empty" if option in options else "an argument is empty")


def _shield_dashes(parser: argparse.ArgumentParser, arguments: list[str]) -> list[str]:
    """The arguments, those spelt anew that argparse would wrongly take for options."""
    options = parser._option_string_actions
    shielded: list[str] = []
    for position, argument in enumerate(arguments):
        if argument == "--":
            return shielded + arguments[position:]
        before = options.get(arguments[position - 1]) if position else None
        if not argument.startswith("-") or argument.partition("=")[0] in options:
            shielded.append(argument)
        elif os.path.lexists(argument) and (before is None or before.type not in (int, float)):
            shielded.append(os.path.join(os.curdir, argument))
        elif before is not None and before.nargs is None and not argument.startswith("--"):
            shielded[-1] += f"={argument}" if shielded[-1].startswith("--") else argument
        else:
            shielded.append(argument)
    return shielded


def printable(text: object) -> str:
    """A text, such as a file's name, with what would steer a terminal, and what cannot be encoded, escaped."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def one_line(error: BaseException) -> str:
    """An error's message in one line; without the traceback in it if it comes from a process that loads images.

    Of a package that is not there, it has the cure.
    """
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if isinstance(error, OSError) and error.errno is not None:
        name = error.filename if error.filename is not None else _file_in_hand(error)
        text = text if name is None else f"{os.fsdecode(name)}: {error.strerror}"
    missing = _missing_module(error)
    if missing and not missing.startswith("focalnet_backbone"):
        text = f"{missing} is not installed: {cure(missing)}"
    if isinstance(error, MemoryError) or is_out_of_memory(error):
        text = text if "memory is not enough" in text else f"the memory is not enough{f': {text}' if text else ''}"
    if "Traceback (most recent call last)" in text:
        text = text.strip().splitlines()[-1]
    if not text and error.__traceback__:  # As of an assertion without message: what says most is the code.
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{place.line} ({type(error).__name__}, {place.filename}:{place.lineno})"
    return printable(" ".join(text.split()))


def _file_in_hand(error: OSError) -> str | None:
    """The name of the file that could not be written on to, which the system does not tell: that of the innermost
    open file among what the functions held that the error went through."""
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__ if error.errno in _OF_DISKS else None):
        held = [*frame.f_locals.values()]
        held += getattr(frame.f_locals.get("self"), "__dict__", {}).values()
        names = [getattr(value, "name", None) for value in held if isinstance(value, io.IOBase)]
        names = [os.fsdecode(name) for name in names if isinstance(name, str | bytes)]
        # Not of the terminal's streams, which many hold and whose names are in angles.
        found = next((name for name in reversed(names) if not name.startswith("<")), found)
    return found


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for those of frameworks and exporters that go on for a page."""
    text = str(error.args[0] if error.args else error).strip()
    return text.splitlines()[0] if text else repr(error)


def _missing_module(error: BaseException) -> str | None:
    """The module whose absence an error tells, or hides, as mmengine's of `custom_imports` does."""
    if isinstance(error, ModuleNotFoundError):
        return error.name
    before = error.__cause__ or error.__context__
    if not isinstance(error, ImportError) or before is None:
        return None
    hidden = _missing_module(before)
    # Of a module of the user's own, the message says more.
    return hidden if hidden and is_known(hidden) else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory for something, on the CPU or a GPU."""
    if isinstance(error, MemoryError):
        return True
    # cuBLAS and cuDNN ask the GPU for memory of their own.
    words = ("can't allocate memory", "not enough memory", "out of memory", "STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def called(tool: str) -> str:
    """What a tool was called: its own name, or `focalnet SUBCOMMAND`, with what follows the name (the process)."""
    name = os.path.basename(sys.argv[0])
    if not name.startswith("focalnet ") or tool.startswith("focalnet "):
        return tool
    return " ".join([name, *tool.split(" ")[1:]])


def fail(tool: str, error: BaseException) -> int:
    """Print the error behind what the tool was called, as argparse does. Returns the exit status."""
    print(f"{called(tool)}: {one_line(error)}", file=sys.stderr)
    return 2


def program(tool: str, *, resumed_by: str = "") -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Decorate the function of a command line, which returns its exit status, so that it ends as programs do.

    SIGINT and SIGTERM end it with one line and the status 130 or 143, a file that cannot be written or memory that is
    not enough with one line and 2, and a closed pipe behind it (`| head`) with 141 and no word. Names that have no
    place in the terminal's encoding are escaped.

    Args:
        tool: its name in messages.
        resumed_by: what the line of an interruption ends in, such as "go on with --resume".
    """

    def decorate(main: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(main)
        def run(*arguments: Any, **keywords: Any) -> int:
            _prepare_streams()
            _kill_workers_at_exit()
            _leave_out_what_was_said(tool)
            try:
                with raise_on_signals():
                    status = main(*arguments, **keywords)
                    sys.stdout.flush()
                    return status
            except KeyboardInterrupt as stop:
                return say_interrupted(tool, stop, resumed_by)
            except BrokenPipeError:
                return _end_closed_pipe()
            except OSError as error:
                if error.filename is None and error.errno in _OF_DISKS and _file_in_hand(error) is None:
                    error = OSError(error.errno, error.strerror, "the standard output")
                    _silence(sys.stdout)
                return fail(tool, error)
            except VariableError as error:
                return fail(tool, error)
            except (MemoryError, RuntimeError) as error:
                if not (is_out_of_memory(error) or "DataLoader worker" in str(error)):
                    raise
                return fail(tool, error)

        return run

    return decorate


@functools.cache
def _kill_workers_at_exit() -> None:
    """Have this process's workers killed when it exits: those that leave signals to it do not heed how Python ends
    them, and it would wait for them for ever."""
    owner = os.getpid()

    def kill() -> None:
        if os.getpid() == owner:
            # torch would take their end for a failure.
            if hasattr(signal, "SIGCHLD"):
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for child in multiprocessing.active_children():
                if child.daemon:
                    child.kill()

    atexit.register(kill)


@functools.cache
def _leave_out_what_was_said(tool: str) -> None:
    """Let a full disk be one line also where a log's thread meets it, or Python itself as it closes files at exit."""
    of_threads, of_exit = threading.excepthook, sys.unraisablehook

    def say_of_thread(failed: threading.ExceptHookArgs) -> None:
        if isinstance(failed.exc_value, OSError) and failed.exc_value.errno in _OF_DISKS:
            fail(tool, failed.exc_value)
        else:
            of_threads(failed)

    def say_at_exit(failed: sys.UnraisableHookArgs, disks: tuple[int, ...] = _OF_DISKS) -> None:
        if getattr(failed.exc_value, "errno", None) not in disks:
            of_exit(failed)

    threading.excepthook = say_of_thread
    sys.unraisablehook = say_at_exit


def say_interrupted(tool: str, stop: KeyboardInterrupt, remark: str = "") -> int:
    """Print that a program was interrupted and how it goes on. Returns the exit status, 130 or 143."""
    remark = getattr(stop, "remark", "") or remark
    with contextlib.suppress(OSError):
        print(f"{called(tool)}: interrupted{f'; {remark}' if remark else ''}", file=sys.stderr)
    return stop.status if isinstance(stop, Stopped) else 130


def _prepare_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # A log that cannot be shown any more (the terminal closed, the pipe's reader gone) is no reason to stop a training.
    logging.raiseExceptions = False


def _end_closed_pipe() -> int:
    for stream in (sys.stdout, sys.stderr):
        _silence(stream)
    return 141


def _silence(stream: Any) -> None:
    """Send what is still to be written nowhere, as Python would complain once more when it ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
