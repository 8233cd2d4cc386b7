"""Stopping long work where it can be gone on from, rather than anywhere."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that the first SIGINT or SIGTERM is put into, for a loop to look at; a second one acts as usual.

    In another thread than the main one, which alone gets signals, the list stays empty.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def receive(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, usual[number])

    for number in usual:
        signal.signal(number, receive)
    try:
        yield received
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def leave_interrupts_to_parent(worker: int) -> None:
    """For the workers of a `DataLoader`: a Ctrl-C reaches them too, but when to stop is their parent's to say."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
