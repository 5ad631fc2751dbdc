"""CUDA devices: what there is, where work happens, how precise products are, and steps captured as graphs.

Nothing here loads CuPy before it is asked. Models and Tensors move with ``.to("cuda")``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nnx import _check, _device
from nnx.backends.precision import get_float32_matmul_precision, set_float32_matmul_precision

__all__ = [
    "describe",
    "device",
    "device_count",
    "empty_cache",
    "get_float32_matmul_precision",
    "graph",
    "is_available",
    "set_float32_matmul_precision",
    "synchronize",
]


def is_available() -> bool:
    """Whether models can be moved to a CUDA device: CuPy, a driver and a device are all there."""
    return device_count() > 0


def device_count() -> int:
    """The number of CUDA devices that CuPy sees; 0 without CuPy or a driver."""
    try:
        from cupy.cuda import runtime

        return int(runtime.getDeviceCount())
    except Exception:  # CuPy raises its own types for a missing driver, and importing a broken CuPy may raise any
        return 0


def describe() -> str:
    """One line on CuPy and its devices, as `nnx.show_config()` prints it."""
    try:
        from cupy import __version__ as version
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            return "not installed (extras cuda12, cuda13)"
        return f"installed, but its import fails: {error}"
    count = device_count()
    return f"{version}, {count} device{'s' * (count != 1)}"


def device(index: int = 0) -> Any:
    """A ``with`` block in which device number `index` is the current one: "cuda" means it, and new arrays are on it.

    A model on another device than the current one computes inside such a block only.
    """
    name = _device.parse("nnx.cuda.device", f"cuda:{_check.integer('nnx.cuda.device', 'index', index, 0)}")
    return _device.load_cupy("nnx.cuda.device").cuda.Device(int(name.partition(":")[2]))


def synchronize() -> None:
    """Wait until everything that was asked of the current device is done. (Operations return before they are.)"""
    _device.parse("nnx.cuda.synchronize", "cuda")
    _device.load_cupy("nnx.cuda.synchronize").cuda.Device().synchronize()


def empty_cache() -> None:
    """Give the memory that CuPy keeps for reuse back to the device."""
    _device.parse("nnx.cuda.empty_cache", "cuda")
    cupy = _device.load_cupy("nnx.cuda.empty_cache")
    cupy.get_default_memory_pool().free_all_blocks()
    cupy.get_default_pinned_memory_pool().free_all_blocks()


class graph:
    """A function of arrays that is recorded once as a CUDA graph and then replayed: one launch instead of hundreds.

    step:    function of arrays with fixed shapes, usually a whole training step: ``zero_grad``, forward, ``backward``,
             ``optimizer.step``. It returns a Tensor, an array, or a tuple of them
    warmup:  calls that run as ever before one is recorded, so that lasting arrays (momentum, say) exist; at least 1

    Each call is exactly one step, warm-up or not, and takes arrays on the CPU or the device. What a replay returns lies
    in memory that the next replay writes: read or copy it before. Every set of shapes and types gets a graph of its
    own. What Python does inside `step` happens at the recording only: no ``.item()``, ``print`` or decisions by value.
    The optimizers of nnx and dropout go on as without a graph: learning rates, step counts and masks change from call
    to call, and a state dict taken between calls is right.

    Errors of `step` are passed on; RuntimeError if it cannot be recorded, because it waits for the device, say.

    >>> step = nnx.cuda.graph(train_step)  # doctest: +SKIP
    >>> loss = step(x, y)  # doctest: +SKIP
    """

    def __init__(self, step: Callable[..., Any], warmup: int = 2) -> None:
        if not callable(step):
            raise TypeError(f"nnx.cuda.graph: expected step to be a function, got {type(step).__name__}")
        self._step = step
        self._warmup = _check.integer("nnx.cuda.graph", "warmup", warmup, 1)
        self._device = _device.parse("nnx.cuda.graph", "cuda")
        cupy = _device.load_cupy("nnx.cuda.graph")
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._calls: dict[tuple, int] = {}
        self._recordings: dict[tuple, _Recording] = {}

    def __call__(self, *arrays: Any) -> Any:
        cupy = _device.load_cupy("nnx.cuda.graph")
        given = [_device.as_array(getattr(a, "data", a) if hasattr(a, "backward") else a) for a in arrays]
        key = tuple((a.shape, a.dtype.str) for a in given)
        caller = cupy.cuda.get_current_stream()
        self._stream.wait_event(caller.record())
        with self._stream:
            recording = self._recordings.get(key)
            if recording is None:
                given = [_device.move(a, self._device) for a in given]
                calls = self._calls[key] = self._calls.get(key, 0) + 1
                if calls <= self._warmup:
                    result = self._step(*given)
                else:
                    recording = self._recordings[key] = _Recording(cupy, self._stream, self._step, given)
            if recording is not None:
                result = recording.replay(given, self._stream)
        caller.wait_event(self._stream.record())
        return result


class _Recording:
    """A graph, the arrays it reads and writes, and the memory pool that nobody else may use while it lives."""

    def __init__(self, cupy: Any, stream: Any, step: Callable[..., Any], given: list) -> None:
        from nnx.backends.cuda._capture import capturing

        self._pool = cupy.cuda.MemoryPool()
        with cupy.cuda.using_allocator(self._pool.malloc), capturing() as self._numbers:
            self._inputs = [a.copy(order="C") for a in given]
            stream.begin_capture()
            try:
                self._result = step(*self._inputs)
            except BaseException as error:
                _abandon(stream)
                if isinstance(error, cupy.cuda.runtime.CUDARuntimeError):
                    raise RuntimeError(
                        f"nnx.cuda.graph: expected a step that can be recorded, CuPy reports: {error}. Does it read a "
                        "value (.item(), float(), a comparison) or copy an array from the CPU?"
                    ) from error
                raise
            self._graph = stream.end_capture()

    def replay(self, given: list, stream: Any) -> Any:
        for static, new in zip(self._inputs, given, strict=True):
            if _device.is_device_array(new):
                static[...] = new
            else:
                static.set(new)
        self._numbers.before_launch()
        self._graph.launch(stream)
        return self._result


def _abandon(stream: Any) -> None:
    """End a capture that has failed; what it recorded is dropped."""
    try:
        stream.end_capture()
    except Exception:  # the capture is invalid, which is why we are here
        pass
