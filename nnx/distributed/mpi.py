"""The communicator over MPI, through mpi4py. Importing this module does not import mpi4py."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any, NoReturn

import numpy as np

from nnx import _check
from nnx.distributed._watchdog import Board, Watchdog
from nnx.distributed.communicator import Communicator

# MPI counts elements in 32-bit integers; longer arrays go in pieces of this many.
_PIECE = 1 << 28
# Seconds that mpiexec gets to pass on a last message: it drops what it has not read when a job is aborted.
_HEARD = 0.3


class MPICommunicator(Communicator):
    """The ranks that ``mpiexec`` has started.

    comm:     a communicator of mpi4py; None takes all ranks. It is duplicated, so that its own messages stay apart
    timeout:  seconds that a rank waits for the others before it ends the job with a message that names those who did
              not come; 0 waits for ever. None: NNX_TIMEOUT of the environment, or 30

    Needs mpi4py and an MPI library: ``pip install "nnx-core[mpi]"`` brings both.
    """

    def __init__(self, comm: Any = None, timeout: float | None = None) -> None:
        MPI = import_mpi()
        self._MPI = MPI
        self._comm = (MPI.COMM_WORLD if comm is None else comm).Dup()
        self.rank = self._comm.Get_rank()
        self.size = self._comm.Get_size()
        self._operations = {"sum": MPI.SUM, "max": MPI.MAX, "min": MPI.MIN}
        if timeout is None:
            timeout = os.environ.get("NNX_TIMEOUT", "30")  # type: ignore[assignment]
        self.timeout = _seconds(timeout)
        self._dog = self._watch()

    def _watch(self) -> Watchdog:
        node = self._comm.Split_type(self._MPI.COMM_TYPE_SHARED)
        here = np.empty(node.Get_size(), np.int64)
        node.Allgather(np.array([self.rank], np.int64), here)
        name = np.zeros(4096, np.uint8)
        board = None
        if node.Get_rank() == 0:
            board = Board.create(len(here))
            path = os.fsencode(board.path)
            name[: len(path)] = np.frombuffer(path, np.uint8)
        node.Bcast(name)
        if board is None:
            board = Board(os.fsdecode(name.tobytes().rstrip(b"\0")), len(here))
        node.Barrier()
        if node.Get_rank() == 0:
            board.forget()  # the memory lives until the last rank ends, the name need not
        node.Free()
        return Watchdog(self, board, here.tolist())

    def allreduce(self, array: Any, op: str = "sum") -> None:
        operation = self._operations[self._operation(op)]
        flat = self._buffer("allreduce", array).reshape(-1)
        with self._dog.waiting("allreduce"):
            for piece in _pieces(flat):
                self._comm.Allreduce(self._MPI.IN_PLACE, piece, operation)

    def broadcast(self, array: Any, root: int = 0) -> None:
        root = self._root(root)
        flat = self._buffer("broadcast", array).reshape(-1)
        with self._dog.waiting("broadcast"):
            for piece in _pieces(flat):
                self._comm.Bcast(piece, root)

    def allgather(self, array: Any) -> Any:
        a = self._buffer("allgather", array, writes=False)
        everyone = np.empty((self.size, *a.shape), a.dtype)
        flat, rows = a.reshape(-1), everyone.reshape(self.size, -1)
        with self._dog.waiting("allgather"):
            if flat.size <= _PIECE // self.size:
                self._comm.Allgather(flat, rows)
            else:
                for root in range(self.size):
                    if root == self.rank:
                        rows[root] = flat
                    for piece in _pieces(rows[root]):
                        self._comm.Bcast(piece, root)
        return everyone

    def barrier(self) -> None:
        with self._dog.waiting("barrier"):
            self._comm.Barrier()

    def abort(self, message: str) -> NoReturn:
        sys.stdout.flush()
        print(f"{self.place}: {message}", file=sys.stderr, flush=True)
        self._dog.stop()
        time.sleep(_HEARD)
        # mpiexec ends a job whose processes die, so this happens also where Abort itself cannot get through
        threading.Thread(target=_leave, args=(3.0,), daemon=True).start()
        self._comm.Abort(1)
        os._exit(1)

    def split_by_node(self) -> MPICommunicator:
        node = self._comm.Split_type(self._MPI.COMM_TYPE_SHARED)
        try:
            return MPICommunicator(node, self.timeout)
        finally:
            node.Free()


def import_mpi() -> Any:
    """mpi4py.MPI, whose first import starts MPI in this process; ImportError that says what to install."""
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ImportError(
            f"nnx.distributed: expected mpi4py and an MPI library, got: {error}. "
            'Install both: pip install "nnx-core[mpi]", or mpi4py alone beside an MPI of the system'
        ) from None
    return MPI


def _pieces(flat: np.ndarray) -> list[np.ndarray]:
    return [flat[i : i + _PIECE] for i in range(0, flat.size, _PIECE)]


def _seconds(timeout: Any) -> float:
    if isinstance(timeout, str):
        try:
            timeout = float(timeout)
        except ValueError:
            raise ValueError(f"NNX_TIMEOUT: expected a number of seconds, got {timeout!r}") from None
    return _check.real("MPICommunicator", "timeout", timeout, 0)


def _leave(seconds: float) -> None:
    time.sleep(seconds)
    os._exit(1)
