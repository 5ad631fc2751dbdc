"""The stand-in is as strict as CuPy, and offers nothing that CuPy does not have."""

from __future__ import annotations

import gc
import inspect
import sys

import numpy as np
import pytest

import nnx


@pytest.fixture
def x(cuda):
    return cuda.asarray(np.arange(12, dtype=np.float32).reshape(3, 4))


# -- arrays ------------------------------------------------------------------------------------------


def test_it_is_cupy_while_the_fixture_lasts(cuda):
    import cupy
    import cupy.cuda.runtime

    assert cupy is cuda and cupy.cuda.runtime.getDeviceCount() == 1
    assert "nnx.backends.cuda" not in sys.modules


def test_after_the_fixture_nothing_is_left():
    assert "standin" not in {k.__module__.split(".")[0] for k in nnx.backends._BY_TYPE}
    module = sys.modules.get("cupy")
    assert module is None or hasattr(module, "__file__")


@pytest.mark.parametrize(
    "mixed",
    [
        lambda x: x + np.ones(4, np.float32),
        lambda x: np.ones(4, np.float32) * x,
        lambda x: x + np.array(1.0),
        lambda x: x == np.array(1.0),
        lambda x: x @ np.ones((4, 2), np.float32),
        lambda x: np.maximum(x, np.zeros(4)),
        lambda x: np.where(x > 0, np.zeros(4), x),
        lambda x: np.concatenate([x, np.ones((3, 4))]),
        lambda x: x.__setitem__(0, np.ones(4)),
        lambda x: x.__iadd__(np.ones(4)),
        lambda x: np.copyto(x, np.ones((3, 4))),
        lambda x: np.add(x, 1, out=np.empty((3, 4))),
        lambda x: np.asarray(x),
        lambda x: np.ones((3, 4)).__iadd__(x),
    ],
)
def test_host_arrays_do_not_mix(x, mixed):
    before = x.get()
    with pytest.raises(TypeError):
        mixed(x)
    np.testing.assert_array_equal(x.get(), before)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: np.sum(x, where=True),
        lambda x: np.max(x, initial=0),
        lambda x: np.add(x, 1, where=x > 0),
        lambda x: np.mean(x, where=x > 0),
        lambda x: np.empty_like(x, subok=False),
        lambda x: np.add.reduce(x),
        lambda x: np.add.at(x, 0, 1),
        lambda x: np.linalg.cond(x),
        lambda x: x.sum(0, initial=1),
        lambda x: x.flags.writeable,
        lambda x: x.ctypes,
        lambda x: x.tostring,
        lambda x: np.zeros(3)[x.sum()],
    ],
)
def test_what_cupy_does_not_have(x, call):
    with pytest.raises((TypeError, AttributeError, IndexError)):
        call(x)


def test_numpys_functions_give_arrays_of_the_device(cuda, x):
    for y, expected in [
        (np.maximum(x, 5), np.maximum(x.get(), 5)),
        (np.where(x > 5, 0, x), np.where(x.get() > 5, 0, x.get())),
        (np.sum(x), 66),
        (x.max(axis=1, keepdims=True), [[3], [7], [11]]),
        (x[1, 2], 6),
        (2 - x * np.float32(3), 2 - x.get() * 3),
        (x @ x.T, x.get() @ x.get().T),
        (-x // 2, -x.get() // 2),
        (np.split(x, 2, axis=1)[1], x.get()[:, 2:]),
        (np.zeros_like(x, shape=(2,)), [0, 0]),
    ]:
        assert type(y) is cuda.ndarray and y.dtype == np.float32
        np.testing.assert_array_equal(y.get(), expected)
    assert type(np.argmax(x)) is cuda.ndarray and x.argmax().item() == 11


def test_values_come_to_the_host_when_asked(x):
    assert float(x[0, 1]) == 1.0 and int(x.sum()) == 66 and bool((x >= 0).all())
    assert x.tolist()[0] == [0, 1, 2, 3] and f"{x.sum():.1f}" == "66.0"
    host = np.empty((3, 4), np.float32)
    assert x.get(out=host) is host and host[2, 3] == 11


def test_views_and_copies(cuda, x):
    row = x[1]
    assert row.base is x and row[1:].base is x and not row.flags.owndata
    assert row.data.ptr == x.data.ptr + 16
    row += 1
    assert x[1, 0].item() == 5
    x[0, 0][...] = 7  # one element is a view, too
    assert x[0, 0].item() == 7
    assert x.reshape(2, 6).base is x and x.T.reshape(12).base is None
    assert x.T.flags.f_contiguous and x[:, :2].flags.forc is False
    assert x.astype(np.float32, copy=False) is x and cuda.ascontiguousarray(x) is x


def test_layouts_are_those_of_cupy(cuda, x):
    t = x.T
    assert (t * 2).flags.c_contiguous and np.where(t > 0, t, 0).flags.c_contiguous
    assert np.zeros_like(t).flags.f_contiguous and t.astype(np.float64).flags.f_contiguous
    assert t.copy().flags.c_contiguous and cuda.copy(t).flags.f_contiguous
    y = cuda.empty_like(cuda.empty((2, 3, 4, 5)).transpose(0, 3, 1, 2))
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous


def test_new_memory_is_not_zero(cuda):
    assert np.isnan(cuda.empty(3, np.float32).get()).all() and np.isnan(cuda.empty_like(cuda.zeros(3)).get()).all()
    assert (cuda.empty(3, np.int64).get() < -(2**60)).all()
    assert cuda.empty(5, np.uint8).data.ptr % 256 == 0


def test_strides_beyond_the_array(cuda, x):
    strided = cuda.lib.stride_tricks.as_strided
    np.testing.assert_array_equal(strided(x, (2, 2), (16, 8)).get(), [[0, 2], [4, 6]])
    with pytest.raises(AssertionError, match="leave the memory"):
        strided(x, (13,), (4,))


def test_the_layout_interfaces(cuda, x):
    interface = x.T.__cuda_array_interface__
    assert interface["shape"] == (4, 3) and interface["strides"] == (4, 16) and interface["version"] == 3
    assert interface["data"] == (x.data.ptr, False)
    assert x.__dlpack_device__() == (2, 0)
    np.testing.assert_array_equal(cuda.from_dlpack(x).get(), x.get())


# -- devices and drivers -----------------------------------------------------------------------------


def test_two_devices(cuda, x):
    import standin

    with pytest.raises(RuntimeError, match="cudaErrorInvalidDevice"):
        cuda.cuda.Device(1).use()
    standin.Machine.devices = 2
    with cuda.cuda.Device(1):
        y = cuda.ones(4, np.float32)
        assert y.device.id == 1 and x.device.id == 0
        with pytest.raises(ValueError, match="Array device must be same as the current device"):
            x + 1
        assert x.copy().device.id == 1 and cuda.asarray(x).device.id == 1
    with pytest.raises(ValueError, match="array device = 1 while current = 0"):
        x * y


def test_no_driver_and_no_device(cuda):
    import standin

    runtime = cuda.cuda.runtime
    standin.Machine.devices = 0
    with pytest.raises(runtime.CUDARuntimeError, match="^cudaErrorNoDevice: no CUDA-capable device is detected"):
        runtime.getDeviceCount()
    standin.Machine.error = ("cudaErrorInsufficientDriver", "CUDA driver version is insufficient")
    with pytest.raises(runtime.CUDARuntimeError, match="^cudaErrorInsufficientDriver"):
        cuda.zeros(3)
    assert not cuda.is_available()


def test_the_pool_counts(cuda):
    pool = cuda.get_default_memory_pool()
    gc.collect()
    before = pool.used_bytes()
    a = cuda.zeros(1000, np.float32)
    assert pool.used_bytes() == before + 4096
    del a
    gc.collect()
    assert pool.used_bytes() == before and pool.total_bytes() >= before + 4096
    pool.free_all_blocks()
    assert pool.total_bytes() == before


# -- graphs ------------------------------------------------------------------------------------------

ADD = 'extern "C" __global__ void add(const float* x, float* y) { y[threadIdx.x] += x[threadIdx.x]; }'


def record(cuda, function):
    stream = cuda.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        try:
            result = function()
        finally:
            graph = stream.end_capture()
    return graph, result


def test_a_graph_repeats_what_it_recorded(cuda, x):
    add = cuda.RawModule(code=ADD).get_function("add")

    def step():
        y = x * 2
        y += 1
        add((1,), (12,), (x, y))
        z = cuda.empty_like(y)
        z[...] = y
        return y, z[1:], z.sum(axis=0)

    graph, (y, part, total) = record(cuda, step)
    assert np.isnan(y.get()).all() and np.isnan(part.get()).all(), "nothing has happened yet"
    for scale in (1, 3):
        x[...] = cuda.asarray(scale * np.arange(12, dtype=np.float32).reshape(3, 4))
        graph.launch()
        expected = 3 * x.get() + 1
        np.testing.assert_array_equal(y.get(), expected)
        np.testing.assert_array_equal(part.get(), expected[1:])
        np.testing.assert_array_equal(total.get(), expected.sum(axis=0))


def test_a_capture_changes_nothing(cuda, x):
    before = x.get()

    def step():
        x[0] = 5
        np.add(x, 1, out=x)
        x.fill(3)

    graph, _ = record(cuda, step)
    np.testing.assert_array_equal(x.get(), before)
    graph.launch()
    np.testing.assert_array_equal(x.get(), np.full((3, 4), 3))


@pytest.mark.parametrize(
    "wait",
    [
        lambda cuda, x: x.get(),
        lambda cuda, x: float(x.sum()),
        lambda cuda, x: bool(x[0, 0] > 1),
        lambda cuda, x: cuda.asarray(np.ones(3)),
        lambda cuda, x: x.set(np.ones((3, 4), np.float32)),
        lambda cuda, x: cuda.cuda.get_current_stream().synchronize(),
        lambda cuda, x: cuda.cuda.Device().synchronize(),
        lambda cuda, x: cuda.cuda.runtime.deviceSynchronize(),
        lambda cuda, x: x[x > 1],
        lambda cuda, x: np.nonzero(x),
        lambda cuda, x: x[[0, 1]],
    ],
)
def test_nothing_is_read_in_a_capture(cuda, x, wait):
    stream = cuda.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="^cudaErrorStreamCaptureUnsupported"):
            wait(cuda, x)
        with pytest.raises(RuntimeError, match="^cudaErrorStreamCaptureInvalidated"):
            stream.end_capture()
    assert not stream.is_capturing()


def test_the_default_stream_does_not_capture(cuda):
    with pytest.raises(RuntimeError, match="cannot capture on the default"):
        cuda.cuda.Stream.null.begin_capture()


def test_a_graph_needs_its_memory(cuda, x):
    """Memory of the common pool is somebody else's once the array is gone; a pool of its own keeps it."""
    graph, _ = record(cuda, lambda: (x * 2).sum())
    gc.collect()
    with pytest.raises(AssertionError, match="the graph uses memory that was freed"):
        graph.launch()
    pool = cuda.cuda.MemoryPool()
    with cuda.cuda.using_allocator(pool.malloc):
        graph, total = record(cuda, lambda: (x * 2).sum())
    gc.collect()
    graph.launch()
    assert total.item() == 132
    pool.free_all_blocks()
    with pytest.raises(AssertionError, match="freed"):
        graph.launch()


# -- products ----------------------------------------------------------------------------------------


def test_precision_of_products(cuda, rng):
    """Factors keep 24, 11 or 8 bits, as in matrix units."""
    from nnx.backends.cuda import _cublas

    a, b = (rng.standard_normal((32, 32)).astype(np.float32) for _ in range(2))
    expected = a.astype(np.float64) @ b
    errors = []
    c = cuda.empty((32, 32), np.float32)
    before = nnx.get_float32_matmul_precision() if hasattr(nnx, "get_float32_matmul_precision") else "highest"
    try:
        for precision in ("highest", "high", "medium"):
            _cublas.precision.set_float32_matmul_precision(precision)
            _cublas.multiply(c, cuda.asarray(a), cuda.asarray(b))
            errors.append(np.abs(c.get() - expected).max() / np.abs(expected).max())
    finally:
        _cublas.precision.set_float32_matmul_precision(before)
    assert errors[0] < 1e-6 and 1e-5 < errors[1] < 1e-3 < errors[2] < 1e-2


# -- the real one ------------------------------------------------------------------------------------


def _parameters(thing):
    """What a callable of CuPy takes: by inspection, or for a compiled method by the first line of its text."""
    try:
        return [p for p in inspect.signature(thing).parameters.values() if p.name != "self"]
    except (TypeError, ValueError):
        line = (thing.__doc__ or "").split("\n")[0]
        inside = line[line.index("(") + 1 : line.rindex(")")]
        words = [p.strip() for p in inside.split(",")]
        names = [w.split("=")[0].split()[-1] for w in words if w and not w.startswith(("self", "/"))]
        return [n for n in names if n != "*"]


def test_the_real_cupy_has_all_of_it():
    """Every name of the stand-in, and every parameter by its name and default; needs CuPy, but no device."""
    cupy = pytest.importorskip("cupy", reason="needs CuPy: the stand-in was not compared with it")
    import cupyx
    import standin
    from standin import device, functions

    assert hasattr(cupy, "__file__") and hasattr(cupyx, "scatter_add")
    missing = []

    def compare(name, ours, real):
        if isinstance(ours, functions.ufunc):
            if not isinstance(real, cupy.ufunc):
                missing.append(name)
            elif (ours.nin, ours.nout) != (real.nin, real.nout):
                missing.append(f"{name}: arguments")
            return
        theirs = _parameters(real)
        if inspect.isfunction(ours) and theirs and isinstance(theirs[0], inspect.Parameter):
            strip = lambda ps: [(p.name, p.kind, p.default) for p in ps]  # noqa: E731
            mine = _parameters(ours)
            if name != "matmul" and strip(mine) != strip(theirs):
                missing.append(f"{name}: {inspect.signature(ours)} is {inspect.signature(real)}")
        else:
            names = [getattr(p, "name", p) for p in theirs]
            own = [p for p in inspect.signature(ours).parameters if p != "self"]
            if not set(own) <= {n.lstrip("*") for n in names}:
                missing.append(f"{name}: {own} is {names}")

    for name, ours in functions.table.items():
        real = cupy
        for part in name.split("."):
            real = getattr(real, part, None)
        if real is None:
            missing.append(name)
        else:
            compare(name, ours, real)
    missing += [name for name in functions.constants if not hasattr(cupy, name)]
    for name in [n for n in dir(standin.ndarray) if not n.startswith("_")]:
        real = getattr(cupy.ndarray, name, None)
        if real is None:
            missing.append(f"ndarray.{name}")
        elif inspect.isfunction(getattr(standin.ndarray, name)):
            compare(f"ndarray.{name}", getattr(standin.ndarray, name), real)
    pairs = [(device.runtime, cupy.cuda.runtime, "runtime"), (device.cuda, cupy.cuda, "cuda")]
    for ours, real, owner in pairs:
        missing += [f"{owner}.{n}" for n in vars(ours) if not n.startswith("_") and not hasattr(real, n)]
    for kind in (device.Stream, device.Event, device.Device, device.Graph, device.MemoryPool, device.PinnedMemoryPool):
        real = getattr(cupy.cuda, kind.__name__)
        names = [n for n in vars(kind) if not n.startswith("_") and n != "generation"]
        missing += [f"{kind.__name__}.{n}" for n in names if not hasattr(real, n)]
    for n in ("c_contiguous", "f_contiguous", "owndata", "forc", "fnc"):
        assert hasattr(cupy._core.flags.Flags, n)
    assert missing == []
