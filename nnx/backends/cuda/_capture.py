"""Numbers that change from step to step inside a captured CUDA graph.

A graph repeats its launches with the arguments that they were captured with. Numbers which the host makes anew in each
step (a learning rate, Adam's bias corrections, the key of a dropout mask) therefore have a place in device memory while
a graph is captured, and kernels read them there. Before each launch of the graph the host makes them again, in the
order of the capture, and sends them as the arguments of one small kernel, so that nothing on the host has to outlive
the launch:

    with capturing() as capture:        # around the capture of the step
        stream.begin_capture(); step(); graph = stream.end_capture()
    ...
    capture.before_launch()             # before every launch, on its stream; the first completes the captured call
    graph.launch()

So a replayed step draws the numbers that the same step would draw without a graph, and the host's counts stay right: a
checkpoint written between replays holds the true step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from nnx.backends.cuda._kernels import Kernels

_BLOCK = 64  # numbers per launch
_numbers = np.dtype([("at", np.float64, (_BLOCK,))])
_f64 = np.dtype(np.float64)
_k = Kernels("capture")
_state = threading.local()


class Capture:
    """What one graph needs beside its launches. Keep it as long as the graph: it owns memory that the graph reads."""

    def __init__(self, xp: Any) -> None:
        self._xp = xp
        self._again: list[Callable[[], None]] = []
        self._blocks: list[Any] = [xp.empty(_BLOCK, np.float64)]
        self._values: list[list[float]] = [[]]  # of each block
        self._place = (0, 0)  # block and number in it, of the next number to make again
        self._launched = False
        self.repeating = False

    def numbers(self, values: Sequence[float]) -> Any:
        """A place on the device for numbers that this call makes anew each time, at most 64 and exact as doubles.

        While the graph is captured, the place is new and returned; when the calls are repeated, the values go to the
        place that the same call got then, and nothing is to be launched.
        """
        if not self.repeating:
            if len(self._values[-1]) + len(values) > _BLOCK:
                self._blocks.append(self._xp.empty(_BLOCK, np.float64))
                self._values.append([])
            start = len(self._values[-1])
            self._values[-1].extend(values)
            return self._blocks[-1][start : start + len(values)]
        block, start = self._place
        if start + len(values) > len(self._values[block]):
            block, start = block + 1, 0
        self._values[block][start : start + len(values)] = values
        self._place = (block, start + len(values))
        return None

    def when_replayed(self, again: Callable[[], None]) -> None:
        """Have `again` called before each launch but the first; it asks for the same numbers in the same order."""
        self._again.append(again)

    def before_launch(self) -> None:
        """Send the numbers of the coming launch to the device."""
        if self._launched:
            self._place = (0, 0)
            self.repeating = True
            with _active(self):
                try:
                    for again in self._again:
                        again()
                finally:
                    self.repeating = False
            if self._place != (len(self._values) - 1, len(self._values[-1])):
                raise RuntimeError(
                    "cuda.graph: expected all numbers of the captured step to be made again, got fewer. Make steps by "
                    "the optimizers' step()"
                )
        self._launched = True
        for block, values in zip(self._blocks, self._values, strict=True):
            if values:
                sent = np.zeros((), _numbers)
                sent["at"][: len(values)] = values
                _k.launch("set_numbers", _f64, 1, _BLOCK, sent, block, len(values))


def current() -> Capture | None:
    """The graph that this thread captures, or whose numbers it makes again."""
    return getattr(_state, "capture", None)


@contextmanager
def capturing() -> Iterator[Capture]:
    """For the capture of a graph: what changes from step to step is taken from device memory."""
    if current() is not None:
        raise RuntimeError("cuda.graph: expected no capture inside of another one, got one in the same thread")
    import cupy

    capture = Capture(cupy)
    with _active(capture):
        yield capture


@contextmanager
def _active(capture: Capture) -> Iterator[None]:
    _state.capture = capture
    try:
        yield
    finally:
        _state.capture = None
