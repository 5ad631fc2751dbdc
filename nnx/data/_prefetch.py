"""One thread that works ahead of its consumer.

One is enough here: NumPy releases the GIL while it copies rows, and the consumer's kernels release
it too. Threads, unlike worker processes, share the arrays; nothing is copied between them.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any

_POLL = 0.5  # seconds; bounds how long Ctrl-C waits where a lock cannot be interrupted (Windows)


def prefetch(produce: Callable[[int], Any], steps: Sequence[int], depth: int) -> Generator[Any, None, None]:
    """Yield ``produce(step)`` for each step, computed in a thread at most `depth` results ahead.

    An exception of `produce` is raised here, as it is, after the results before it. Closing the
    iterator (a `break`, an exception or Ctrl-C in the consumer) stops the thread and waits until it
    is gone.
    """
    channel = _Channel(depth)
    worker = threading.Thread(target=_work, args=(channel, produce, steps), name="nnx-data", daemon=True)
    try:
        worker.start()
        for _ in steps:
            result, error = channel.get(worker)
            if error is not None:
                try:
                    raise error
                finally:
                    del error  # its traceback holds this frame
            yield result
    finally:
        channel.close()
        # At interpreter exit the worker may never run again, and a collection that runs in the
        # worker cannot wait for the worker itself; both times it ends on its own.
        waits = not sys.is_finalizing() and threading.current_thread() is not worker
        if waits and worker.is_alive():
            worker.join()


def _work(channel: _Channel, produce: Callable[[int], Any], steps: Sequence[int]) -> None:
    for step in steps:
        if not channel.wait_for_room():
            return
        try:
            result = produce(step)
        except BaseException as error:
            channel.put(None, error)
            return
        channel.put(result, None)
        del result  # or the batch would live on until the next one is ready


class _Channel:
    """A bounded queue between one producer and one consumer, which the consumer can close."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._ready: deque[tuple[Any, BaseException | None]] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def wait_for_room(self) -> bool:
        """Wait until a result fits in; False if nobody wants it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._ready) < self._depth)
            return not self._closed

    def put(self, result: Any, error: BaseException | None) -> None:
        with self._changed:
            if not self._closed:
                self._ready.append((result, error))
                self._changed.notify_all()

    def get(self, worker: threading.Thread) -> tuple[Any, BaseException | None]:
        with self._changed:
            while not self._ready:
                if not worker.is_alive():
                    raise RuntimeError(
                        "DataLoader: the prefetch thread is gone (it does not survive a fork). "
                        "Start a new iteration in the new process."
                    )
                self._changed.wait(_POLL)
            item = self._ready.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
