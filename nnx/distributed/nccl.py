"""The communicator over NCCL, through CuPy, for arrays on GPUs. Importing this module does not import CuPy."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from nnx.distributed.communicator import Communicator

_TYPES = {
    "int8": "NCCL_INT8", "uint8": "NCCL_UINT8", "int32": "NCCL_INT32", "uint32": "NCCL_UINT32",
    "int64": "NCCL_INT64", "uint64": "NCCL_UINT64", "float16": "NCCL_FLOAT16", "float32": "NCCL_FLOAT32",
    "float64": "NCCL_FLOAT64",
}  # fmt: skip
_OPERATIONS = {"sum": "NCCL_SUM", "max": "NCCL_MAX", "min": "NCCL_MIN"}


class NCCLCommunicator(Communicator):
    """The ranks of another communicator, with a GPU each: CuPy arrays go from GPU to GPU, NumPy arrays over `host`.

    host:    an `MPICommunicator` (or a serial one), over which NCCL's ids are exchanged
    device:  this rank's GPU; None counts the ranks of a machine through its GPUs

    ImportError without CuPy, RuntimeError where it finds no GPU or was built without NCCL.
    """

    def __init__(self, host: Communicator, device: int | None = None) -> None:
        self._cupy, self._nccl = _import_nccl()
        self.host = host
        self.rank, self.size = host.rank, host.size
        count = self._cupy.cuda.runtime.getDeviceCount()
        self.device = host.split_by_node().rank % count if device is None else device
        number = np.empty(self._nccl.NCCL_UNIQUE_ID_BYTES, np.int8)  # CuPy gives the bytes as signed numbers
        if self.rank == 0:
            number[:] = self._nccl.get_unique_id()
        host.broadcast(number)
        with self._cupy.cuda.Device(self.device):
            self._comm = self._nccl.NcclCommunicator(self.size, tuple(number.tolist()), self.rank)

    @property
    def step(self) -> int:
        return self.host.step

    @step.setter
    def step(self, value: int) -> None:
        self.host.step = value

    def allreduce(self, array: Any, op: str = "sum") -> None:
        name = self._operation(op)
        if isinstance(array, np.ndarray):
            return self.host.allreduce(array, op)
        self._buffer("allreduce", array)
        with self._cupy.cuda.Device(self.device):
            operation = getattr(self._nccl, _OPERATIONS[name])
            self._comm.allReduce(
                array.data.ptr, array.data.ptr, array.size, self._type(array), operation, self._stream()
            )

    def broadcast(self, array: Any, root: int = 0) -> None:
        root = self._root(root)
        if isinstance(array, np.ndarray):
            return self.host.broadcast(array, root)
        self._buffer("broadcast", array)
        with self._cupy.cuda.Device(self.device):
            self._comm.broadcast(array.data.ptr, array.data.ptr, array.size, self._type(array), root, self._stream())

    def allgather(self, array: Any) -> Any:
        if isinstance(array, np.ndarray):
            return self.host.allgather(array)
        self._buffer("allgather", array, writes=False)
        with self._cupy.cuda.Device(self.device):
            everyone = self._cupy.empty((self.size, *array.shape), array.dtype)
            self._comm.allGather(array.data.ptr, everyone.data.ptr, array.size, self._type(array), self._stream())
        return everyone

    def barrier(self) -> None:
        with self._cupy.cuda.Device(self.device):
            self._cupy.cuda.get_current_stream().synchronize()
        self.host.barrier()

    def abort(self, message: str) -> NoReturn:
        self.host.abort(message)

    def split_by_node(self) -> Communicator:
        return self.host.split_by_node()

    def _is_own_array(self, array: Any) -> bool:
        return isinstance(array, self._cupy.ndarray)

    def _type(self, array: Any) -> int:
        if array.dtype.name not in _TYPES:
            raise TypeError(f"NCCLCommunicator: expected a type among {', '.join(_TYPES)}, got {array.dtype}")
        return getattr(self._nccl, _TYPES[array.dtype.name])

    def _stream(self) -> int:
        return self._cupy.cuda.get_current_stream().ptr


def _import_nccl() -> tuple[Any, Any]:
    from nnx import cuda

    try:
        import cupy
        from cupy.cuda import nccl
    except ImportError as error:
        raise ImportError(
            f"NCCLCommunicator: expected CuPy with NCCL, got: {error}. "
            'Install it for your CUDA: pip install "nnx-core[cuda12]" or "nnx-core[cuda13]"'
        ) from None
    if not getattr(nccl, "available", True):
        raise RuntimeError("NCCLCommunicator: expected a CuPy that was built with NCCL, got one without")
    if cuda.device_count() == 0:
        raise RuntimeError("NCCLCommunicator: expected at least one GPU, got none")
    return cupy, nccl
