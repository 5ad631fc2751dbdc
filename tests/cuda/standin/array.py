"""The array of the stand-in, the memory under it, and the way every operation on it takes."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

GUARD = 4096  # bytes before and after every allocation that nobody may write
_ALIGNMENT = 256  # of what cudaMalloc returns
_REAL_KINDS = "fc"


_STATUS = {
    "cudaErrorInvalidValue": 1,
    "cudaErrorInsufficientDriver": 35,
    "cudaErrorNoDevice": 100,
    "cudaErrorInvalidDevice": 101,
    "cudaErrorIllegalState": 401,
    "cudaErrorStreamCaptureUnsupported": 900,
    "cudaErrorStreamCaptureInvalidated": 901,
}


class CUDARuntimeError(RuntimeError):
    """As CuPy's: the text begins with the name of CUDA's error, `status` is its number."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.status = _STATUS.get(name, 999)  # cudaErrorUnknown


class _State(threading.local):
    """What CUDA keeps per thread, and what tests turn (see `standin`)."""

    device = 0
    stream: Any = None  # None: the default stream
    allocator: Any = None  # None: the default pool


state = _State()


_alive: weakref.WeakSet[Memory] = weakref.WeakSet()


def find_memory(ptr: int, size: int) -> Memory | None:
    """The memory that these bytes lie in."""
    return next((m for m in list(_alive) if m.ptr <= ptr and ptr + size <= m.ptr + m.size), None)


def addressed(words: np.ndarray) -> list[Memory]:
    """The memories that addresses among these 64-bit words lie in; other words are numbers."""
    spans = sorted(((m.ptr, m) for m in list(_alive)), key=lambda span: span[0])
    starts = np.array([start for start, _ in spans], np.int64)
    found = {}
    for word, place in zip(words, np.searchsorted(starts, words, "right") - 1, strict=True):
        if place >= 0 and word < spans[place][0] + spans[place][1].size:
            found[place] = spans[place][1]
    return list(found.values())


class Memory:
    """Device memory: bytes between two guards, filled with what nobody expects."""

    def __init__(self, size: int, device: int, pool: Any) -> None:
        room = np.empty(size + 2 * GUARD + _ALIGNMENT, np.uint8)
        self.start = GUARD + -(room.ctypes.data + GUARD) % _ALIGNMENT
        self.raw = room[: self.start + size + GUARD]
        self.size, self.device_id, self.pool = size, device, pool
        self.raw[:] = 0xFF  # NaN in every type of floating-point number
        self.raw[self.start : self.start + size] = 0xA5
        _alive.add(self)

    @property
    def ptr(self) -> int:
        return self.raw.ctypes.data + self.start

    def content(self) -> np.ndarray:
        """The bytes between the guards."""
        return self.raw[self.start : self.start + self.size]

    def guards_hold(self) -> bool:
        """Whether nothing was written beside the allocation."""
        return bool((self.raw[: self.start] == 0xFF).all() and (self.raw[self.start + self.size :] == 0xFF).all())


class MemoryPointer:
    """A place in a Memory, as `cupy.cuda.MemoryPointer`."""

    def __init__(self, mem: Memory, offset: int) -> None:
        self.mem, self._offset = mem, offset
        self.ptr, self.device_id = mem.ptr + offset, mem.device_id

    def __int__(self) -> int:
        return self.ptr

    def __add__(self, offset: int) -> MemoryPointer:
        return MemoryPointer(self.mem, self._offset + offset)

    def memset_async(self, value: int, size: int, stream: Any = None) -> None:
        """Set bytes, in order with the stream's work."""
        place = self.mem.content()[self._offset : self._offset + size]
        enqueue(lambda: place.fill(value), [self.mem])

    memset = memset_async

    def copy_from_device_async(self, src: MemoryPointer, size: int, stream: Any = None) -> None:
        """Copy bytes from other device memory, in order with the stream's work."""
        to = self.mem.content()[self._offset : self._offset + size]
        source = src.mem.content()[src._offset : src._offset + size]
        if len(to) != size or len(source) != size:
            raise CUDARuntimeError("cudaErrorInvalidValue", "invalid argument")
        enqueue(lambda: np.copyto(to, source), [self.mem, src.mem])

    copy_from_device = copy_from_device_async


class Flags:
    """The three flags a CuPy array has, by attribute and by name; there is no `writeable`."""

    def __init__(self, c_contiguous: bool, f_contiguous: bool, owndata: bool) -> None:
        self.c_contiguous, self.f_contiguous, self.owndata = c_contiguous, f_contiguous, owndata

    @property
    def forc(self) -> bool:
        return self.c_contiguous or self.f_contiguous

    @property
    def fnc(self) -> bool:
        return self.f_contiguous and not self.c_contiguous

    def __getitem__(self, name: str) -> bool:
        return {"C_CONTIGUOUS": self.c_contiguous, "F_CONTIGUOUS": self.f_contiguous, "OWNDATA": self.owndata}[name]


class ndarray:  # noqa: N801 (CuPy's name)
    """A wrapper around a NumPy array `_host` that lies in a `Memory`."""

    __slots__ = ("_host", "_memory", "base", "__weakref__")
    __array_priority__ = 100
    __hash__ = None

    def __init__(
        self, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None, order: str = "C"
    ) -> None:
        dtype = np.dtype(dtype)
        if dtype.kind not in "?biufc":
            raise ValueError(f"Unsupported dtype {dtype}")
        shape = (int(shape),) if np.ndim(shape) == 0 else tuple(int(n) for n in shape)
        if strides is not None and memptr is None:
            raise ValueError("memptr is required if strides is given.")
        if order not in ("C", "F", "c", "f"):
            raise ValueError(f"order not understood. order={order}")
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        fresh = memptr is None
        if memptr is None:
            memptr = allocate(size)
        self._host = np.ndarray(shape, dtype, memptr.mem.content(), memptr._offset, strides, order.upper())
        self._memory, self.base = memptr.mem, None
        if fresh:
            spoil(self._host)

    # -- what it is ------------------------------------------------------------------------------

    @property
    def flags(self) -> Flags:
        f = self._host.flags
        return Flags(bool(f.c_contiguous), bool(f.f_contiguous), self.base is None)

    @property
    def data(self) -> MemoryPointer:
        return MemoryPointer(self._memory, self._host.ctypes.data - self._memory.ptr if self.size else 0)

    @property
    def device(self) -> Any:
        from standin.device import Device

        return Device(self._memory.device_id)

    @property
    def T(self) -> ndarray:  # noqa: N802
        return self if self.ndim < 2 else run(np.transpose, [self])

    @property
    def mT(self) -> ndarray:  # noqa: N802
        return run(np.matrix_transpose, [self])

    @property
    def real(self) -> ndarray:
        return self

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "descr": self.dtype.descr,
            "stream": 1,
            "version": 3,
            "strides": None if self.flags.c_contiguous else self.strides,
            "data": (self.data.ptr if self.size else 0, False),
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, self._memory.device_id)

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None):
        """A capsule that NumPy may read: to its consumer this memory is the CPU's."""
        self._readable()
        return self._host.__dlpack__(max_version=max_version)

    def toDlpack(self):  # noqa: N802
        return self.__dlpack__()

    # -- to the host -----------------------------------------------------------------------------

    def _readable(self) -> None:
        """A copy to the host: waits for the stream, which a capture forbids."""
        forbid_in_capture()

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        self._readable()
        if out is None:
            return np.array(self._host, order=order)
        if type(out) is not np.ndarray:
            raise TypeError("Only numpy.ndarray can be obtained from cupy.ndarray")
        if out.dtype != self.dtype:
            raise TypeError(f"{out.dtype} array cannot be obtained from {self.dtype} array")
        if out.shape != self.shape:
            raise ValueError(f"Shape mismatch. Expected shape: {self.shape}, actual shape: {out.shape}")
        out[...] = self._host
        return out

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if self.dtype != arr.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if self.shape != arr.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        if not self.flags.forc:
            raise RuntimeError("Cannot set to non-contiguous array")
        forbid_in_capture()
        self._host[...] = arr

    def item(self) -> Any:
        return self.get().item()

    def tolist(self) -> Any:
        return self.get().tolist()

    def tobytes(self, order: str = "C") -> bytes:
        return self.get().tobytes(order)

    def __array__(self, dtype: Any = None) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.copy()

    def __copy__(self) -> ndarray:
        return self.copy()

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __iter__(self) -> Iterable[ndarray]:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(self.shape[0]))

    # -- indices ---------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> ndarray:
        keys = keys_of(key)
        if any(isinstance(k, ndarray) and k.dtype == bool for k in keys):
            forbid_in_capture()  # the length of the result depends on the mask
        if not any(k is Ellipsis for k in keys):
            keys = (*keys, Ellipsis)  # so that the result is an array always
        return run(lambda x, *k: x[k], [self, *keys], any_device=not any(isinstance(k, ndarray) for k in keys))

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.ndim:
            raise TypeError("non-scalar numpy.ndarray cannot be used for fill")

        def assign(x: np.ndarray, v: Any, *k: Any) -> None:
            x[k] = v

        run(assign, [self, value, *keys_of(key)], writes=[self])

    def scatter_add(self, slices: Any, value: Any) -> None:
        run(lambda x, v, *k: np.add.at(x, k, v), [self, value, *keys_of(slices)], writes=[self])

    # -- NumPy's functions -----------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from standin import functions

        if method != "__call__" or ufunc.__name__ not in functions.table:
            return NotImplemented
        if "out" in kwargs:
            if len(kwargs["out"]) != 1:
                raise ValueError("The 'out' parameter must have exactly one array value")
            kwargs["out"] = kwargs["out"][0]
        return functions.table[ufunc.__name__](*inputs, **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        from standin import functions

        name = ".".join([*func.__module__.split(".")[1:], func.__name__])
        if name not in functions.table or not all(t in (ndarray, np.ndarray) for t in types):
            return NotImplemented
        return functions.table[name](*args, **kwargs)


def keys_of(key: Any) -> tuple[Any, ...]:
    """The parts of an index; lists and NumPy's arrays are copied to the device, as CuPy does."""
    keys = key if isinstance(key, tuple) else (key,)
    return tuple(from_host(np.asarray(k)) if isinstance(k, (list, tuple, np.ndarray)) else k for k in keys)


def _delegate() -> None:
    """Attributes that are those of the host's array."""
    for name in ("shape", "strides", "dtype", "ndim", "size", "itemsize", "nbytes"):
        setattr(ndarray, name, property(lambda self, name=name: getattr(self._host, name)))
    for name in "bool int float complex repr str format bytes".split():  # no index: CuPy's arrays are none

        def method(self: ndarray, *args: Any, name: str = f"__{name}__") -> Any:
            self._readable()
            return getattr(self._host, name)(*args)

        setattr(ndarray, f"__{name}__", method)


_delegate()


# -- memory --------------------------------------------------------------------------------------


def allocate(size: int) -> MemoryPointer:
    """Memory from the current allocator."""
    from standin import device

    device.check_driver()
    return (state.allocator or device.default_pool.malloc)(size)


def spoil(host: np.ndarray) -> None:
    """What is in memory that nobody has written: NaN, or a large number."""
    if host.size:
        if host.dtype.kind in _REAL_KINDS:
            host[...] = np.nan
        else:
            host[...] = np.frombuffer(b"\xa5" * host.itemsize, host.dtype)[0]


def place(host: np.ndarray, keep: bool = False) -> ndarray:
    """A device array of these values, in C order or, where `keep` says so, in the layout of `host`."""
    if not keep or host.flags.c_contiguous or not _dense(host):
        array = ndarray(host.shape, host.dtype)
    else:
        array = ndarray(host.shape, host.dtype, allocate(host.nbytes), host.strides)
    array._host[...] = host
    return array


def _dense(host: np.ndarray) -> bool:
    """Whether the elements fill their memory in some order of the axes."""
    order = sorted(range(host.ndim), key=lambda i: -host.strides[i])
    return bool(host.size and host.transpose(order).flags.c_contiguous)


def from_host(host: np.ndarray, keep: bool = False) -> ndarray:
    """A copy from the host: in a capture it would read the host's memory at every replay."""
    if host.ndim:
        forbid_in_capture()
    return place(host, keep)


def _view(host: np.ndarray, of: ndarray) -> ndarray:
    array = object.__new__(ndarray)
    array._host, array._memory, array.base = host, of._memory, of if of.base is None else of.base
    return array


# -- every operation -----------------------------------------------------------------------------


def capture_of_stream() -> Any:
    """The capture that the current stream's work goes into, or None."""
    from standin import device

    return device.active_capture()


def forbid_in_capture() -> None:
    """An error, and the end of the capture, where one is under way."""
    capture = capture_of_stream()
    if capture is not None:
        capture.fail()


def enqueue(work: Callable[[], Any], memories: Sequence[Memory]) -> None:
    """Do `work`, or record it where the stream is capturing."""
    capture = capture_of_stream()
    if capture is None:
        work()
    else:
        capture.record(work, memories)


@contextmanager
def _as_on_device():
    with np.errstate(all="ignore"):
        yield


def run(
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: dict[str, Any] | None = None,
    *,
    writes: Sequence[ndarray] = (),
    keep: bool = False,
    scalars: bool = True,
    any_device: bool = False,
) -> Any:
    """`function` of the hosts of all arrays among the arguments; results are views of them, or new arrays.

    writes:      the arrays that it changes; results that are their hosts come back as these very arrays
    keep:        new arrays have the layout that NumPy chose; else C order, as of CuPy's kernels
    scalars:     NumPy's and Python's numbers become 0-d arrays
    any_device:  the arrays may be those of another device than the current one
    """
    found: list[ndarray] = []
    hosts = [_host(a, found) for a in args]
    named = {k: _host(a, found) for k, a in (kwargs or {}).items()}
    elsewhere = {a._memory.device_id for a in found} - {state.device}
    if elsewhere and not any_device:
        raise ValueError(
            "Array device must be same as the current device: "
            f"array device = {elsewhere.pop()} while current = {state.device}"
        )
    capture = capture_of_stream()
    before = [w._host.copy() for w in writes] if capture else []
    with _as_on_device():
        result = function(*hosts, **named)
    fresh: list[ndarray] = []
    wrapped = _wrap(result, found, fresh, keep, scalars)
    if capture is not None and (fresh or writes):
        for w, old in zip(writes, before, strict=True):
            w._host[...] = old
        places = [a._host for a in fresh]
        for host in places:
            host[...] = np.nan if host.dtype.kind in _REAL_KINDS else 0

        def replay() -> None:
            with _as_on_device():
                again = _flat(function(*hosts, **named))
            new = [r for r in again if not any(r is h for h in hosts)]
            for host, value in zip(places, new, strict=not writes):
                host[...] = value

        capture.record(replay, [a._memory for a in (*found, *fresh)])
    return wrapped


def _flat(result: Any) -> list[Any]:
    return list(result) if isinstance(result, (tuple, list)) else [result]


def _host(value: Any, found: list[ndarray]) -> Any:
    """The array to compute with, or the error CuPy has for it."""
    if isinstance(value, ndarray):
        found.append(value)
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, (list, tuple)) and any(isinstance(v, (ndarray, np.ndarray, list, tuple)) for v in value):
        return type(value)(_host(v, found) for v in value)
    return value


def _wrap(result: Any, found: list[ndarray], fresh: list[ndarray], keep: bool, scalars: bool) -> Any:
    if isinstance(result, (tuple, list)):
        return type(result)(_wrap(r, found, fresh, keep, scalars) for r in result)
    if isinstance(result, (np.generic, bool, int)) and scalars:
        result = np.asarray(result)
    if not isinstance(result, np.ndarray):
        return result
    for array in found:
        if result is array._host:
            return array
    for array in found:
        if result.size and np.may_share_memory(result, array._memory.raw):
            return _view(result, array)
    fresh.append(place(result, keep))
    return fresh[-1]
