"""How this process was started: alone, or as one rank of many."""

from __future__ import annotations

import os
import sys
import threading
import traceback
import warnings
from typing import Any

import numpy as np

from nnx.distributed.communicator import Communicator, SerialCommunicator

# Set by the launchers of Open MPI, MPICH and Intel MPI (and Slurm with PMI), and MVAPICH, in the processes they start.
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")

_world: Communicator | None = None


def is_distributed() -> bool:
    """Whether this process was started as one of several ranks, by ``mpiexec -n 2`` or the like."""
    values = (os.environ.get(name, "") for name in _SIZES)
    return any(value.isdecimal() and int(value) > 1 for value in values)


def world() -> Communicator:
    """All ranks of this job; made at the first call, which every rank must make.

    Under ``mpiexec`` it is an `MPICommunicator`: each rank then takes its share of the machine's cores
    (`set_threads_of_rank`), and an exception that nobody catches, in any thread, ends all ranks. Otherwise it is a
    `SerialCommunicator`, and nothing is imported.
    """
    global _world
    if _world is None:
        if is_distributed():
            from nnx.distributed.mpi import MPICommunicator

            comm = MPICommunicator()
            end_all_on_exception(comm)
            set_threads_of_rank(comm)
            _world = comm
        else:
            _world = SerialCommunicator()
    return _world


def end_all_on_exception(comm: Communicator) -> None:
    """From now on an exception that nobody catches ends all ranks, with a message that names this one and its step."""

    def end(kind: type[BaseException], error: BaseException | None, trace: Any) -> None:
        lines = "".join(traceback.format_exception(kind, error, trace))
        comm.abort(f"{kind.__name__}: {error}: the job ends\n{lines}".rstrip())

    def end_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is not SystemExit:
            end(args.exc_type, args.exc_value, args.exc_traceback)

    sys.excepthook = end
    threading.excepthook = end_thread


def set_threads_of_rank(comm: Communicator) -> int:
    """Let this rank use its share of the machine's cores: cores / ranks on this machine, at least one.

    NNX_NUM_THREADS, if it is set, wins. RuntimeWarning, on one rank of each machine, where ranks times threads are
    more than the cores. Returns the number of threads.
    """
    import nnx
    from nnx._ext import threads

    node = comm.split_by_node()
    cores = _cores_of_node(node)
    if not os.environ.get("NNX_NUM_THREADS", "").strip():
        nnx.set_num_threads(min(threads.default_num_threads(), max(1, cores // node.size)))
    total = np.array([nnx.get_num_threads()])
    node.allreduce(total)
    if node.rank == 0 and total[0] > cores:
        warnings.warn(
            f"nnx.distributed: expected at most as many threads as cores ({cores}), got {total[0]} threads of "
            f"{node.size} ranks on this machine: they wait for each other. Start fewer ranks",
            RuntimeWarning,
            stacklevel=2,
        )
    return nnx.get_num_threads()


def _cores_of_node(node: Communicator) -> int:
    """How many cores the ranks of a machine have together; a launcher may have bound each of them to some."""
    from nnx._ext import threads

    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    own = np.zeros(4096, np.uint8)
    own[[core for core in os.sched_getaffinity(0) if core < own.size]] = 1
    node.allreduce(own, "max")
    cores = int(own.sum())
    quota = threads._cgroup_quota()
    return cores if quota is None else min(cores, max(1, int(np.ceil(quota))))
