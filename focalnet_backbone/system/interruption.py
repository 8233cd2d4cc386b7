"""Stopping long work where it can be gone on from, rather than anywhere."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What a terminal sends at Ctrl-C, and a scheduler before it kills."""


_SAME_SIGNAL = 2.0
"""Seconds within which a second signal is taken for the first one, come by another way."""


class Stopped(KeyboardInterrupt):
    """One of `SIGNALS` came.

    Args:
        number: the signal.
        remark: how the work can be gone on with, for whom it may concern.
    """

    def __init__(self, number: int, remark: str = "") -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number
        self.remark = remark

    @property
    def status(self) -> int:
        """The exit status of a program that the signal ended, as a shell has it."""
        return 128 + self.number


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that the first SIGINT or SIGTERM is put into, for a loop to look at; one seconds later acts as usual.

    In another thread than the main one, which alone gets signals, the list stays empty.
    """
    received: list[int] = []

    first: list[float] = []

    def receive(number: int, frame: object) -> None:
        if not received:
            received.append(number)
            first.append(time.monotonic())
        # A launcher passes on what a scheduler has sent to all.
        elif time.monotonic() - first[0] > _SAME_SIGNAL:
            usual[number](number, frame) if callable(usual[number]) else signal.default_int_handler(number, frame)

    with _handle(receive) as usual:
        yield received


@contextlib.contextmanager
def raise_on_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise `Stopped`, so that what is open is closed and nothing half-written stays."""

    def receive(number: int, frame: object) -> None:
        raise Stopped(number)

    with _handle(receive):
        yield


@contextlib.contextmanager
def _handle(receive: object) -> Iterator[dict[int, object]]:
    """Have this process's signals handled; its forked children, which inherit that, end by them as usual."""
    # One that is ignored, as SIGINT in a shell's background jobs and under nohup, stays so.
    usual = {number: signal.getsignal(number) for number in SIGNALS}
    usual = {number: handler for number, handler in usual.items() if handler not in (signal.SIG_IGN, None)}
    if threading.current_thread() is not threading.main_thread():
        yield {}
        return
    owner = os.getpid()

    def handle(number: int, frame: object) -> None:
        if os.getpid() == owner:
            receive(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for number in usual:
        signal.signal(number, handle)
    try:
        yield usual
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def leave_interrupts_to_parent(worker: int = 0) -> None:
    """For the workers of a `DataLoader`: a Ctrl-C or a scheduler's SIGTERM reaches them too, but when to stop is their
    parent's to say. They end with it, whatever ends it and whatever they are at."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def end_with_parent() -> None:
    """Have this process killed when the one that started it dies. On Linux; elsewhere nothing happens.

    For the workers of a launcher, which would otherwise go on alone, into the folder of the run that resumes theirs,
    and for those that read files, which would finish a long call first. A process that another thread than the main one
    has forked is left as it is: to Linux, its parent is that thread, which may end long before.
    """
    if not sys.platform.startswith("linux") or threading.main_thread().name != "MainThread":
        return
    parent = os.getppid()
    set_death_signal = 1
    ctypes.CDLL(None, use_errno=True).prctl(set_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # It has died just before.
        os.kill(os.getpid(), signal.SIGKILL)
