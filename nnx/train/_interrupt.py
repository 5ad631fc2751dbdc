"""Ctrl-C and SIGTERM that wait for the end of the step."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Interrupts:
    """While this context is open, the first Ctrl-C or SIGTERM sets `pending`; the second one raises where it strikes.

    A KeyboardInterrupt in the middle of a step would leave some parameters updated and others not, and statistics of
    batch normalisation ahead of the weights. A handler of the user's own is left in place, and so is everything in
    other threads than the main one, which Python sends no signals to.

    pending:  the signal's number, 0 for none
    """

    def __init__(self) -> None:
        self.pending = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
                if signal.getsignal(number) is default:
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: Any) -> None:
        if self.pending:
            raise interruption(number)
        self.pending = number

    def __exit__(self, *exc: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


def interruption(number: int) -> BaseException:
    """What ends `fit` after this signal: KeyboardInterrupt, or SystemExit with the code that a shell would show."""
    return SystemExit(128 + number) if number == signal.SIGTERM else KeyboardInterrupt()
