"""Ctrl-C that waits for the end of the step."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Interrupts:
    """While this context is open, the first Ctrl-C sets `pending`; the second one raises where it strikes.

    A KeyboardInterrupt in the middle of a step would leave some parameters updated and others not, and statistics of
    batch normalisation ahead of the weights. A handler of the user's own is left in place, and so is everything in
    other threads than the main one, which Python sends no signals to.
    """

    def __init__(self) -> None:
        self.pending = False
        self._previous: Any = None

    def __enter__(self) -> Interrupts:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._previous = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number: int, frame: Any) -> None:
        if self.pending:
            raise KeyboardInterrupt
        self.pending = True

    def __exit__(self, *exc: Any) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None
