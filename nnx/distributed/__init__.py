"""Data-parallel training: every rank works on its share of a batch, and the gradients are averaged over MPI.

>>> import numpy as np
>>> from nnx import nn
>>> model = DataParallel(nn.Linear(2, 1), SerialCommunicator())  # started without mpiexec, it is the model itself
>>> model(np.ones((3, 2))).shape
(3, 1)

``mpiexec -n 4 python script.py`` starts the ranks; nnx starts no process and opens no port. How it works, what it
promises and what it costs: ``docs/scaling.md``.
"""

from nnx.distributed._world import is_distributed, set_threads_of_rank, world
from nnx.distributed.communicator import Communicator, SerialCommunicator
from nnx.distributed.mpi import MPICommunicator
from nnx.distributed.nccl import NCCLCommunicator
from nnx.distributed.norm import SyncBatchNorm
from nnx.distributed.parallel import DataParallel

__all__ = [
    "Communicator",
    "DataParallel",
    "MPICommunicator",
    "NCCLCommunicator",
    "SerialCommunicator",
    "SyncBatchNorm",
    "is_distributed",
    "set_threads_of_rank",
    "world",
]
