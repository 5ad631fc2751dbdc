"""Products of matrices by cuBLAS, called in the library that CuPy has loaded.

CuPy's own bindings refuse every call while a stream is captured into a graph, decide alone how float32 is multiplied,
and write to fresh contiguous arrays only. Here operands may be views (transposed, parts of wider matrices, stacks), the
result is written or added where it belongs, and the precision is that of `nnx.cuda.set_float32_matmul_precision`.

Each thread has a handle per device, and each stream a workspace of its own, so that results do not depend on what runs
beside them. A captured product keeps its workspace, which is never freed.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any

from nnx.backends import precision

__all__ = ["is_operand", "multiply"]

_NORMAL, _TRANSPOSED = 0, 1  # cublasOperation_t
_SINGLE, _DOUBLE = 0, 1  # cudaDataType_t
_COMPUTE = {"highest": 68, "high": 77, "medium": 75}  # cublasComputeType_t: 32F, 32F_FAST_TF32, 32F_FAST_16BF
_COMPUTE_OLD = {"highest": 68, "high": 68, "medium": 68}  # before compute capability 8.0
_COMPUTE_DOUBLE = 70
_DEFAULT_ALGORITHM = -1
_WORKSPACE, _WORKSPACE_OLD = 32 << 20, 4 << 20  # bytes that NVIDIA recommends, from 9.0 on and before

_ZERO_ONE_SINGLE: Any = (ctypes.c_float(0), ctypes.c_float(1))
_ZERO_ONE_DOUBLE: Any = (ctypes.c_double(0), ctypes.c_double(1))

_local = threading.local()


def multiply(c: Any, a: Any, b: Any, add: bool = False, how: str | None = None) -> None:
    """``c = a b``, or with `add` ``c += a b``, for matrices or stacks of as many matrices.

    c, a, b:  arrays (M, N), (M, K), (K, N) of one type, float32 or float64, or stacks with one more axis in front; a
              matrix beside stacks is used for all of them. Rows or columns lie without gaps in memory (`is_operand`).
              None is empty, and c overlaps neither a nor b
    how:      the precision of float32: "highest", "high" or "medium"; None is the one that is set
    """
    library, handle = _ready()
    (transposed_c, step_c), (transposed_a, step_a), (transposed_b, step_b) = _layout(c), _layout(a), _layout(b)
    if transposed_c:  # the transposed product, which is written by rows
        return multiply(c.swapaxes(-1, -2), b.swapaxes(-1, -2), a.swapaxes(-1, -2), add, how)
    m, n = c.shape[-2:]
    k = a.shape[-1]
    kind, compute, scalars = _DOUBLE, _COMPUTE_DOUBLE, _ZERO_ONE_DOUBLE
    if c.itemsize == 4:
        kind, compute = _SINGLE, handle.compute[how or precision.get_float32_matmul_precision()]
        scalars = _ZERO_ONE_SINGLE
    one, factor = ctypes.byref(scalars[1]), ctypes.byref(scalars[add])
    # cuBLAS counts along columns, where our matrices are their transposes: c^T = b^T a^T.
    if c.ndim == 2 or len(c) == 1:
        status = library.cublasGemmEx_64(
            handle.pointer, transposed_b, transposed_a, n, m, k,
            one, b.data.ptr, kind, step_b, a.data.ptr, kind, step_a,
            factor, c.data.ptr, kind, step_c, compute, _DEFAULT_ALGORITHM,
        )  # fmt: skip
    else:
        status = library.cublasGemmStridedBatchedEx_64(
            handle.pointer, transposed_b, transposed_a, n, m, k,
            one, b.data.ptr, kind, step_b, _step(b), a.data.ptr, kind, step_a, _step(a),
            factor, c.data.ptr, kind, step_c, _step(c), len(c), compute, _DEFAULT_ALGORITHM,
        )  # fmt: skip
    _check(status, "product")
    return None


def is_operand(x: Any) -> bool:
    """Whether cuBLAS reads this matrix, or stack of matrices, where it lies: by rows or by columns without gaps."""
    return _find_layout(x) is not None


def _layout(x: Any) -> tuple[int, int]:
    layout = _find_layout(x)
    if layout is None:
        raise ValueError(f"multiply: expected matrices whose rows or columns have no gaps, got strides {x.strides}")
    return layout


def _find_layout(x: Any) -> tuple[int, int] | None:
    """How a matrix lies: by rows (normal) or by columns (transposed), and the step from one to the next in elements."""
    rows, columns = x.shape[-2:]
    down, across = (stride // x.itemsize for stride in x.strides[-2:])
    if columns == 1 or across == 1:
        if rows == 1:
            return _NORMAL, columns
        if down >= columns:
            return _NORMAL, down
    if rows == 1 or down == 1:
        if columns == 1:
            return _TRANSPOSED, rows
        if across >= rows:
            return _TRANSPOSED, across
    return None


def _step(x: Any) -> int:
    """The elements from one matrix of a stack to the next."""
    return x.strides[0] // x.itemsize if x.ndim == 3 and len(x) > 1 else 0


class _Handle:
    """A cuBLAS handle, with the stream that it works on and what the device can do."""

    def __init__(self, library: Any, capability: int) -> None:
        self.compute = _COMPUTE if capability >= 80 else _COMPUTE_OLD
        self._size = _WORKSPACE if capability >= 90 else _WORKSPACE_OLD
        self.pointer = ctypes.c_void_p()
        _check(library.cublasCreate_v2(ctypes.byref(self.pointer)), "handle")
        self._stream: int | None = None
        self._workspaces: dict[int, Any] = {}

    def work_on(self, stream: int, library: Any) -> None:
        """Do what follows on this stream."""
        if stream == self._stream:
            return
        import cupy

        workspace = self._workspaces.get(stream)
        if workspace is None:
            workspace = self._workspaces[stream] = cupy.empty(self._size, "uint8")
        _check(library.cublasSetStream_v2(self.pointer, stream), "stream")
        _check(library.cublasSetWorkspace_v2(self.pointer, workspace.data.ptr, workspace.nbytes), "workspace")
        self._stream = stream


def _ready() -> tuple[Any, _Handle]:
    """The library, and this thread's handle for the current device on the current stream."""
    import cupy

    try:
        library, handles = _local.library, _local.handles
    except AttributeError:
        library, handles = _local.library, _local.handles = _load(), {}
    device = cupy.cuda.runtime.getDevice()
    handle = handles.get(device)
    if handle is None:
        handle = handles[device] = _Handle(library, int(cupy.cuda.Device().compute_capability))
    handle.work_on(cupy.cuda.get_current_stream().ptr, library)
    return library, handle


def _load() -> Any:
    """The cuBLAS that CuPy is linked with: what a module depends on is found through the module."""
    from cupy_backends.cuda.libs import cublas

    library = ctypes.CDLL(cublas.__file__)
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    library.cublasCreate_v2.argtypes = (pointer,)
    library.cublasSetStream_v2.argtypes = (pointer, pointer)
    library.cublasSetWorkspace_v2.argtypes = (pointer, pointer, ctypes.c_size_t)
    matrix, stack = (pointer, number, size), (pointer, number, size, ctypes.c_longlong)
    start = (pointer, number, number, size, size, size, pointer)
    library.cublasGemmEx_64.argtypes = (*start, *matrix, *matrix, pointer, *matrix, number, number)
    library.cublasGemmStridedBatchedEx_64.argtypes = (*start, *stack, *stack, pointer, *stack, size, number, number)
    return library


def _check(status: int, what: str) -> None:
    if status:
        raise RuntimeError(f"cuBLAS: expected a {what}, got status {status} (cublasStatus_t)")
