"""Waiting for other ranks, with an end: who has arrived stands on a board that all ranks of a machine can read."""

from __future__ import annotations

import mmap
import os
import select
import signal
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from nnx.distributed.communicator import Communicator

_PAUSE = 0.1  # seconds between two looks
_SHORT = 0.02  # the same after SIGTERM: SIGKILL may follow soon


class Board:
    """Shared memory with a line per rank of this machine: collective calls begun, and steps of training done."""

    def __init__(self, path: str, lines: int) -> None:
        self.path = path
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), lines * 16)
        self.lines = np.frombuffer(self._memory, np.int64).reshape(lines, 2)

    @classmethod
    def create(cls, lines: int) -> Board:
        folder = "/dev/shm" if os.path.isdir("/dev/shm") else None
        handle, path = tempfile.mkstemp(prefix="nnx-", dir=folder)
        os.write(handle, bytes(lines * 16))
        os.close(handle)
        return cls(path, lines)

    def forget(self) -> None:
        """Take the name away; who has the memory open keeps it."""
        try:
            os.unlink(self.path)
        except OSError:  # a system that does not delete what is open; the file is a few bytes in its temporary folder
            pass


class Watchdog:
    """A thread that ends the job when a collective call takes longer than the communicator's timeout.

    It also says where this rank was when SIGTERM came and the main thread was inside such a call, deaf to signals:
    that is what happens to the others when a rank is killed.

    comm:   whose calls are watched
    board:  of the ranks of this machine
    ranks:  their numbers, in the order of the board's lines
    """

    def __init__(self, comm: Communicator, board: Board, ranks: list[int]) -> None:
        self._comm_ref = weakref.ref(comm)
        self._board = board.lines
        self._own = board.lines[ranks.index(comm.rank)]
        self._ranks = ranks
        self._since: float | None = None
        self._what = ""
        self._told = False
        self._over = False
        self._signals = _wakeup() if comm.size > 1 else None
        if comm.size > 1:
            # the thread holds no more than a weak reference, and ends with the communicator
            threading.Thread(target=_watch, args=(weakref.ref(self),), name="nnx watchdog", daemon=True).start()

    @property
    def _comm(self) -> Communicator:
        comm = self._comm_ref()
        assert comm is not None  # it owns this object
        return comm

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        self._own[0] += 1
        self._own[1] = self._comm.step
        self._what = what
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def stop(self) -> None:
        self._over = True

    def look(self, told: bool) -> bool:
        """End the job if this rank has waited too long; `told`: SIGTERM came. Returns whether to go on."""
        since, now = self._since, time.monotonic()
        told, self._told = self._told, told  # a wait that is about to end has one more pause for it
        if told and since is not None:
            self._say(f"told to end (SIGTERM) while it waits in {self._what} for {self._missing()}")
        comm = self._comm_ref()
        if comm is None or self._over:
            return False
        timeout = comm.timeout
        if since is not None and timeout and now - since > timeout:
            comm.abort(
                f"{self._what} has waited {timeout:g} s for {self._missing()}: the job ends. "
                "A longer patience: NNX_TIMEOUT, in seconds"
            )
        return True

    def _say(self, text: str) -> None:
        os.write(2, f"{self._comm.place}: {text}\n".encode())  # one write, so that ranks do not mix their lines

    def _missing(self) -> str:
        """The ranks of this machine that have not come to the call that this one is in."""
        calls = int(self._own[0])
        late = [
            f"rank {rank} (after step {line[1]})"
            for rank, line in zip(self._ranks, self._board.tolist(), strict=True)
            if line[0] < calls
        ]
        if late:
            return ", ".join(late)
        if len(self._ranks) < self._comm.size:
            return "a rank on another machine (all ranks of this one are here)"
        return "the other ranks, which are all here: the network, or one that was killed"


def _watch(reference: weakref.ref[Watchdog]) -> None:
    dog = reference()
    signals = None if dog is None else dog._signals
    del dog
    told = False
    while True:
        pause, told = _SHORT if told else _PAUSE, False
        if signals is None:
            time.sleep(pause)
        elif select.select([signals], [], [], pause)[0]:
            told = signal.SIGTERM in os.read(signals, 64)
        dog = reference()
        if dog is None or not dog.look(told):
            return
        del dog


def _wakeup() -> int | None:
    """The end of a pipe where Python's own signal handler writes the numbers of signals as they come."""
    if threading.current_thread() is not threading.main_thread() or os.name == "nt":
        return None
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    if before != -1:  # an event loop of the user's has it
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
        return None
    return reader
