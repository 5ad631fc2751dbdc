"""Devices, streams, graphs, memory pools and modules of kernels of the stand-in."""

from __future__ import annotations

import time
import types
import weakref
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from standin.array import CUDARuntimeError, Memory, MemoryPointer, enqueue, forbid_in_capture, ndarray, spoil, state


class Machine:
    """What tests turn: how many devices there are, and what is wrong with the driver."""

    devices = 1
    error: tuple[str, str] | None = None  # ("cudaErrorInsufficientDriver", "CUDA driver version is ...")


def check_driver() -> None:
    """The error that any call gets where there is no driver or no device."""
    if Machine.error is not None:
        raise CUDARuntimeError(*Machine.error)
    if Machine.devices == 0:
        raise CUDARuntimeError("cudaErrorNoDevice", "no CUDA-capable device is detected")


# -- memory --------------------------------------------------------------------------------------


class MemoryPool:
    """Counts what lives in it; `generation` says how often its free blocks were given back to the driver."""

    def __init__(self, allocator: Any = None) -> None:
        self._blocks: weakref.WeakSet[Memory] = weakref.WeakSet()
        self._kept = 0  # bytes of the largest use so far: they stay with the pool
        self.generation = 0

    def malloc(self, size: int) -> MemoryPointer:
        memory = Memory(int(size), state.device, self)
        self._blocks.add(memory)
        self._kept = max(self._kept, self.used_bytes())
        return MemoryPointer(memory, 0)

    def used_bytes(self) -> int:
        return sum(-(-m.size // 512) * 512 for m in list(self._blocks))

    def total_bytes(self) -> int:
        return self._kept

    def free_bytes(self) -> int:
        return self._kept - self.used_bytes()

    def free_all_blocks(self, stream: Any = None) -> None:
        self._kept = self.used_bytes()
        self.generation += 1

    def n_free_blocks(self) -> int:
        return int(self.free_bytes() > 0)

    def set_limit(self, size: Any = None, fraction: Any = None) -> None:
        pass

    def get_limit(self) -> int:
        return 0


default_pool = MemoryPool()


class PinnedMemoryPool:
    """Of memory of the host there is nothing to keep."""

    def __init__(self, allocator: Any = None) -> None:
        pass

    def free_all_blocks(self) -> None:
        pass

    def n_free_blocks(self) -> int:
        return 0


default_pinned_pool = PinnedMemoryPool()


def set_allocator(allocator: Any = None) -> None:
    """The allocator of all arrays from now on."""
    state.allocator = allocator


def get_allocator() -> Any:
    return state.allocator or default_pool.malloc


def alloc(size: int) -> MemoryPointer:
    return get_allocator()(size)


@contextmanager
def using_allocator(allocator: Any = None):
    before, state.allocator = state.allocator, allocator
    try:
        yield
    finally:
        state.allocator = before


# -- devices -------------------------------------------------------------------------------------


class Device:
    """A device by its number, current inside of `with`."""

    def __init__(self, device: Any = None) -> None:
        self.id = state.device if device is None else int(device)
        self._before: list[int] = []

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self) -> int:
        return self.id

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def __enter__(self) -> Device:
        self._before.append(state.device)
        self.use()
        return self

    def __exit__(self, *error: Any) -> None:
        state.device = self._before.pop()

    def use(self) -> None:
        runtime.setDevice(self.id)

    def synchronize(self) -> None:
        check_driver()
        forbid_in_capture()

    @property
    def compute_capability(self) -> str:
        check_driver()
        return "90"

    @property
    def mem_info(self) -> tuple[int, int]:
        check_driver()
        return 8 << 30, 16 << 30


def _get_device_count() -> int:
    if Machine.error is not None or Machine.devices == 0:
        check_driver()
    return Machine.devices


def _set_device(device: int) -> None:
    check_driver()
    if not 0 <= device < Machine.devices:
        raise CUDARuntimeError("cudaErrorInvalidDevice", "invalid device ordinal")
    state.device = device


def _get_device() -> int:
    check_driver()
    return state.device


def _get_device_properties(device: int) -> dict[str, Any]:
    check_driver()
    return {"name": b"stand-in", "major": 9, "minor": 0, "multiProcessorCount": 4, "totalGlobalMem": 16 << 30}


def _synchronize() -> None:
    check_driver()
    forbid_in_capture()


runtime = types.ModuleType("cupy.cuda.runtime")
runtime.CUDARuntimeError = CUDARuntimeError
runtime.is_hip = False
runtime.streamCaptureModeGlobal, runtime.streamCaptureModeThreadLocal, runtime.streamCaptureModeRelaxed = 0, 1, 2
runtime.getDeviceCount, runtime.getDevice, runtime.setDevice = _get_device_count, _get_device, _set_device
runtime.getDeviceProperties, runtime.deviceSynchronize = _get_device_properties, _synchronize
runtime.runtimeGetVersion = runtime.driverGetVersion = lambda: 13000
runtime.memGetInfo = lambda: Device().mem_info


# -- streams and graphs --------------------------------------------------------------------------


class Capture:
    """What a capturing stream has been given; nothing of it has happened yet."""

    def __init__(self) -> None:
        self.work: list[Callable[[], Any]] = []
        self.memories: list[weakref.ref[Memory]] = []
        self.pools: list[tuple[Any, int]] = []
        self.failed = False

    def record(self, work: Callable[[], Any], memories: Sequence[Memory]) -> None:
        self.work.append(work)
        known = {id(r()) for r in self.memories}
        self.memories += [weakref.ref(m) for m in memories if id(m) not in known]
        self.pools += [(weakref.ref(m.pool), m.pool.generation) for m in memories if id(m) not in known]

    def fail(self) -> None:
        self.failed = True
        raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing")


class Graph:
    """Recorded work. A replay fails where it would use memory that others may have by now: memory of the default
    pool whose arrays are gone, or of a pool that is gone or has given its free blocks back.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(
            "currently this class cannot be initiated by the user and must be created via capture"
        )

    def launch(self, stream: Any = None) -> None:
        memories = []
        for reference, (pool, generation) in zip(self._capture.memories, self._capture.pools, strict=True):
            memory = reference()
            memories.append(memory)
            if memory is None:
                owner = pool()
                if owner is None or owner is default_pool or owner.generation != generation:
                    raise AssertionError("the graph uses memory that was freed: hold its arrays, or a pool of its own")

        def replay() -> None:
            for work in self._capture.work:
                work()

        with _on(stream):
            enqueue(replay, [m for m in memories if m is not None])

    def upload(self, stream: Any = None) -> None:
        pass


@contextmanager
def _on(stream: Any):
    before = state.stream
    state.stream = before if stream is None else stream
    try:
        yield
    finally:
        state.stream = before


class Stream:
    """A stream: its work is done when it is given, or recorded while it is capturing."""

    null: Stream
    ptds: Stream
    _count = 1

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: Any = None
    ) -> None:
        check_driver()
        if null or ptds:
            self.ptr, self.device_id = (0 if null else 2), -1
        else:
            Stream._count += 1
            self.ptr, self.device_id = 0x5000 + 16 * Stream._count, state.device
        self.is_non_blocking = non_blocking
        self._capture: Capture | None = None
        self._before: list[Any] = []

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.ptr == other.ptr

    def __hash__(self) -> int:
        return self.ptr

    def __enter__(self) -> Stream:
        if self.device_id not in (-1, state.device):
            raise RuntimeError(
                f"The device that the stream is created on ({self.device_id}) does not match with "
                f"the current device ({state.device})"
            )
        self._before.append(state.stream)
        state.stream = self
        return self

    def __exit__(self, *error: Any) -> None:
        state.stream = self._before.pop()

    def use(self) -> Stream:
        state.stream = self
        return self

    @property
    def done(self) -> bool:
        if self._capture is not None:
            self._capture.fail()
        return True

    def synchronize(self) -> None:
        if self._capture is not None:
            self._capture.fail()

    def record(self, event: Any = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        if self._capture is not event._capture:
            for capture in filter(None, (self._capture, event._capture)):
                capture.failed = True
            raise CUDARuntimeError("cudaErrorStreamCaptureIsolation", "dependency created on uncaptured work")

    def launch_host_func(self, callback: Any, arg: Any) -> None:
        if self._capture is None:
            callback(arg)
        else:
            self._capture.record(lambda: callback(arg), [])

    def begin_capture(self, mode: Any = None) -> None:
        if self.ptr in (0, 1):
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self._capture is not None:
            raise CUDARuntimeError("cudaErrorIllegalState", "the operation cannot be performed in the present state")
        self._capture = Capture()

    def end_capture(self) -> Graph:
        capture, self._capture = self._capture, None
        if capture is None:
            raise CUDARuntimeError("cudaErrorIllegalState", "the operation cannot be performed in the present state")
        if capture.failed:
            raise CUDARuntimeError(
                "cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"
            )
        graph = object.__new__(Graph)
        graph._capture = capture
        return graph

    def is_capturing(self) -> bool:
        return self._capture is not None


def active_capture() -> Capture | None:
    return None if state.stream is None else state.stream._capture


Stream.null, Stream.ptds = Stream(null=True), Stream(ptds=True)


def get_current_stream(device_id: int = -1) -> Stream:
    return Stream.null if state.stream is None else state.stream


class Event:
    """A point in a stream; its time is that of the host."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        check_driver()
        self.done, self._capture, self._time = True, None, 0.0

    def record(self, stream: Any = None) -> None:
        self._capture = (stream or get_current_stream())._capture
        self._time = time.perf_counter()

    def synchronize(self) -> None:
        if self._capture is not None:
            self._capture.fail()


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    return 1000 * (end_event._time - start_event._time)


# -- kernels -------------------------------------------------------------------------------------


class RawKernel:
    """A kernel that the emulator runs."""

    def __init__(self, code: str, name: str, options: tuple[str, ...] = (), backend: str = "nvrtc") -> None:
        self._module, self.name = RawModule(code=code, options=options, backend=backend), name

    def __call__(self, grid: Any, block: Any, args: Any, *, shared_mem: int = 0) -> None:
        import emulator

        check_driver()
        if shared_mem:
            raise AssertionError("dynamic shared memory is not emulated")
        library = emulator.build(self._module.code, self._module.options)
        launch = library.prepare(self.name, tuple(grid), tuple(block), tuple(args))
        arrays = [a for a in args if isinstance(a, ndarray)]
        for a in arrays:
            if a._memory.device_id != state.device:
                raise AssertionError(
                    f"{self.name}: an array of device {a._memory.device_id}, current is {state.device}"
                )
        enqueue(launch, [a._memory for a in arrays] + emulator.memories_in_structs(tuple(args)))


class RawModule:
    """CUDA source by options; kernels are found by name."""

    def __init__(
        self, code: str | None = None, *, path: str | None = None, options: tuple[str, ...] = (), backend: str = "nvrtc"
    ) -> None:
        if not isinstance(options, tuple):
            raise TypeError(f"options must be a tuple, got {type(options)}")
        if code is None or path is not None or backend not in ("nvrtc", "nvcc"):
            raise AssertionError("the stand-in's modules come from code")
        self.code, self.options, self.backend = code, options, backend

    def compile(self, log_stream: Any = None) -> None:
        import emulator

        emulator.build(self.code, self.options)

    def get_function(self, name: str) -> RawKernel:
        import emulator

        if name not in emulator.build(self.code, self.options).kernels:
            raise CUDARuntimeError("CUDA_ERROR_NOT_FOUND", "named symbol not found")
        kernel = object.__new__(RawKernel)
        kernel._module, kernel.name = self, name
        return kernel


def reset() -> None:
    """As at the start: one device, no capture, the default stream and pool."""
    Machine.devices, Machine.error = 1, None
    state.device, state.stream, state.allocator = 0, None, None


cuda = types.ModuleType("cupy.cuda")
for _thing in (
    CUDARuntimeError, Device, Event, Graph, Memory, MemoryPointer, MemoryPool, PinnedMemoryPool, Stream,
    alloc, get_allocator,
    get_current_stream, get_elapsed_time, set_allocator, using_allocator,
):  # fmt: skip
    if _thing is not CUDARuntimeError:
        setattr(cuda, _thing.__name__, _thing)
cuda.runtime = runtime
cuda.get_device_id = _get_device
cuda.is_available = lambda: Machine.error is None and Machine.devices > 0
cuda.stream = types.ModuleType("cupy.cuda.stream")
cuda.stream.Stream, cuda.stream.Event, cuda.stream.get_current_stream = Stream, Event, get_current_stream
cuda.graph = types.ModuleType("cupy.cuda.graph")
cuda.graph.Graph = Graph
cuda.memory = types.ModuleType("cupy.cuda.memory")
cuda.memory.MemoryPool, cuda.memory.MemoryPointer = MemoryPool, MemoryPointer
cuda.memory.OutOfMemoryError = type("OutOfMemoryError", (MemoryError,), {})

__all__ = ["Machine", "cuda", "default_pool", "np", "reset", "runtime", "spoil"]
