"""What the ranks of a job say to each other: the interface, and the job of one rank."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from typing import Any, NoReturn

import numpy as np

from nnx import _check

OPERATIONS = ("sum", "max", "min")


class Communicator(ABC):
    """The ranks of a job. All of its methods but `abort` are collective: every rank calls them, in the same order.

    rank, size:  this process's number, and how many there are
    step:        steps of training that are done, for messages
    timeout:     seconds after which waiting for the others ends the job; 0 waits for ever

    Only arrays travel, as the bytes they are: nothing is pickled.
    """

    rank = 0
    size = 1
    step = 0
    timeout = 0.0

    @abstractmethod
    def allreduce(self, array: Any, op: str = "sum") -> None:
        """Replace `array`, in place, by its sum (or "max", "min") over all ranks: the same bits on each of them."""

    @abstractmethod
    def broadcast(self, array: Any, root: int = 0) -> None:
        """Overwrite `array` with the one of rank `root`."""

    @abstractmethod
    def allgather(self, array: Any) -> Any:
        """The arrays of all ranks, stacked in rank order: shape (size, *array.shape)."""

    @abstractmethod
    def barrier(self) -> None:
        """Return when every rank has come here."""

    @abstractmethod
    def abort(self, message: str) -> NoReturn:
        """End all ranks with exit code 1; `message` goes to standard error with this rank and its step before it."""

    @abstractmethod
    def split_by_node(self) -> Communicator:
        """The ranks that share this one's machine, as a communicator of their own."""

    # -- made of these -------------------------------------------------------------------------

    def sum_in_order(self, array: Any) -> None:
        """Like ``allreduce``, adding the ranks' arrays one after the other: ``((a_0 + a_1) + a_2) + ...``."""
        parts = self.allgather(array)
        array[...] = parts[0]
        for part in parts[1:]:
            array += part

    def broadcast_text(self, text: str | None, root: int = 0) -> str:
        """The text of rank `root`; the other ranks may pass None."""
        data = np.frombuffer((text or "").encode(), np.uint8).copy()
        length = np.array([data.size])
        self.broadcast(length, root)
        if self.rank != root:
            data = np.empty(int(length[0]), np.uint8)
        self.broadcast(data, root)
        return data.tobytes().decode()

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on any rank."""
        found = np.array([bool(flag)], np.int64)
        self.allreduce(found, "max")
        return bool(found[0])

    @property
    def place(self) -> str:
        """Who speaks, for messages."""
        return f"nnx: rank {self.rank} of {self.size}, after step {self.step}"

    def _buffer(self, method: str, array: Any, writes: bool = True) -> Any:
        """`array`, checked to be something that can be sent as it lies in memory."""
        owner = f"{type(self).__name__}.{method}"
        if not self._is_own_array(array):
            raise TypeError(f"{owner}: expected an array, got {type(array).__name__}")
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{owner}: expected an array of numbers, got dtype {array.dtype}")
        if not array.flags.c_contiguous:
            raise ValueError(f"{owner}: expected a C-contiguous array, got strides {array.strides}")
        if writes and isinstance(array, np.ndarray) and not array.flags.writeable:
            raise ValueError(f"{owner}: expected a writeable array, got a read-only one")
        return array

    def _is_own_array(self, array: Any) -> bool:
        return isinstance(array, np.ndarray)

    def _operation(self, op: str) -> str:
        return _check.choice(f"{type(self).__name__}.allreduce", "op", op, OPERATIONS)

    def _root(self, root: int) -> int:
        number = _check.integer(f"{type(self).__name__}.broadcast", "root", root, 0)
        if number >= self.size:
            raise ValueError(f"{type(self).__name__}.broadcast: expected root below {self.size}, got {number}")
        return number

    def __repr__(self) -> str:
        return f"{type(self).__name__}(rank={self.rank}, size={self.size})"


class SerialCommunicator(Communicator):
    """The only rank of a job.

    >>> import numpy as np
    >>> a = np.array([1.0, 2.0])
    >>> SerialCommunicator().allreduce(a)
    >>> a
    array([1., 2.])
    """

    def allreduce(self, array: Any, op: str = "sum") -> None:
        self._operation(op)
        self._buffer("allreduce", array)

    def broadcast(self, array: Any, root: int = 0) -> None:
        self._root(root)
        self._buffer("broadcast", array)

    def allgather(self, array: Any) -> Any:
        return self._buffer("allgather", array, writes=False)[None].copy()

    def barrier(self) -> None: ...

    def abort(self, message: str) -> NoReturn:
        print(f"{self.place}: {message}", file=sys.stderr, flush=True)
        raise SystemExit(1)

    def split_by_node(self) -> Communicator:
        return SerialCommunicator()
