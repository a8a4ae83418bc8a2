"""Ctrl-C and SIGTERM ask the run to stop at a safe place; a second Ctrl-C insists."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether somebody asked for an end."""

    def __init__(self) -> None:
        self.requested = False
        self.signal_number = 0


class Stopped(Exception):
    """The run left early at a safe place; started again, it goes on from there."""

    def __init__(self, where: str, signal_number: int):
        super().__init__(where)
        self.exit_code = 128 + signal_number

    def __reduce__(self) -> tuple[type[Stopped], tuple[str, int]]:
        return Stopped, (str(self), self.exit_code - 128)  # it may cross from a worker to who waits for it


@contextmanager
def stopping() -> Iterator[Stop]:
    """Turn the first SIGINT or SIGTERM into a request; handlers are put back afterwards."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.requested, stop.signal_number = True, number

    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals reach the main thread only; whoever runs us elsewhere handles them
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
