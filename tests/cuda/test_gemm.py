"""Matrix products of the CUDA backend on the stand-in, whose cuBLAS has the same functions, and plain loops in them."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from nnx.backends.base import Backend
from nnx.backends.precision import get_float32_matmul_precision, set_float32_matmul_precision

BASE = Backend()
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


@pytest.fixture
def gemm(cuda):
    from nnx.backends.cuda import gemm

    return gemm


@pytest.fixture
def backend(cuda, gemm):
    class Ours(gemm.GemmCUDA, Backend):
        xp = cuda

    return Ours()


def close(got, want, dtype):
    got = got.get()
    assert got.shape == want.shape and got.dtype == dtype
    bound = 1e-10 if dtype == np.float64 else 1e-5  # sums of at most 100 products
    np.testing.assert_allclose(got, want, rtol=0, atol=bound * max(1, abs(want).max(initial=0)))


# -- matmul ----------------------------------------------------------------------------------------

SHAPES = [
    ((5, 7), (7, 3)),
    ((1, 7), (7, 1)),
    ((4, 1), (1, 6)),
    ((1, 1), (1, 1)),
    ((130, 70), (70, 65)),
    ((7,), (7, 3)),
    ((5, 7), (7,)),
    ((7,), (7,)),
    ((2, 5, 7), (7, 3)),
    ((2, 3, 5, 7), (7,)),
    ((5, 7), (2, 7, 3)),
    ((7,), (2, 7, 3)),
    ((4, 5, 7), (4, 7, 3)),
    ((2, 4, 5, 7), (2, 4, 7, 3)),
    ((2, 1, 5, 7), (4, 7, 3)),
    ((1, 4, 5, 7), (3, 1, 7, 2)),
    ((1, 5, 7), (4, 7, 3)),
    ((0, 7), (7, 3)),
    ((5, 0), (0, 3)),
    ((2, 5, 0), (2, 0, 3)),
    ((0, 5, 7), (7, 3)),
    ((0, 5, 7), (0, 7, 3)),
    ((5, 7), (7, 0)),
    ((2, 5, 7), (2, 7, 1)),
]


@each_dtype
def test_matmul(cuda, backend, dtype, rng):
    for shapes in SHAPES:
        a, b = (rng.standard_normal(s).astype(dtype) for s in shapes)
        close(backend.matmul(cuda.asarray(a), cuda.asarray(b)), np.matmul(a, b), dtype)


def _layouts(cuda, a):
    """The same matrices in the ways that they may lie in memory."""
    rows, columns = a.shape[-2:]
    wide = cuda.zeros((*a.shape[:-2], rows + 3, 2 * columns + 1))
    part, spread = wide[..., 1 : 1 + rows, 1 : 1 + columns], wide.copy()[..., :rows, 1::2]
    part[...] = spread[...] = cuda.asarray(a)
    turned = cuda.asarray(a.swapaxes(-1, -2).copy()).swapaxes(-1, -2)
    backwards = cuda.asarray(a[..., ::-1, :].copy())[..., ::-1, :]
    return [cuda.asarray(a), part, spread, turned, backwards]


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_layouts(cuda, backend, lead, rng):
    a, b = rng.standard_normal((*lead, 6, 5)), rng.standard_normal((*lead, 5, 4))
    for left in _layouts(cuda, a):
        for right in _layouts(cuda, b):
            close(backend.matmul(left, right), a @ b, np.float64)


def test_operands_are_not_copied(cuda, backend, rng):
    from standin import cublas

    a, b = cuda.asarray(rng.standard_normal((7, 5))), cuda.asarray(rng.standard_normal((4, 7)))
    products = cublas.watch()
    backend.matmul(a.T, b.T)
    stack = cuda.asarray(rng.standard_normal((3, 5, 7)))
    backend.matmul(stack, b.T)
    backend.matmul(stack.swapaxes(1, 2), stack)
    backend.matmul(stack[:, :, 1:4], stack[:, 1:4, :])
    # cuBLAS counts along columns: its first operand is our second
    assert [(p.a, p.b) for p in products] == [
        (b.data.ptr, a.data.ptr),
        (b.data.ptr, stack.data.ptr),
        (stack.data.ptr, stack.data.ptr),
        (stack.data.ptr + 7 * 8, stack.data.ptr + 8),
    ]
    assert [(p.ta, p.tb, p.count) for p in products] == [(1, 1, 1), (1, 0, 1), (0, 1, 3), (0, 0, 3)]


def test_matmul_of_other_types(cuda, backend, rng):
    a, b = rng.integers(-9, 9, (4, 5)), rng.standard_normal((5, 3))
    got = backend.matmul(cuda.asarray(a), cuda.asarray(a.T.copy()))
    assert got.dtype == a.dtype
    np.testing.assert_array_equal(got.get(), a @ a.T)
    close(backend.matmul(cuda.asarray(b.T.astype(np.float32)), cuda.asarray(b)), b.T.astype(np.float32) @ b, np.float64)


def test_shapes_that_do_not_fit(cuda, backend):
    message = r"matmul: expected shapes \(.., M, K\) and \(.., K, N\), got \(2, 3\) and \(4, 5\)"
    with pytest.raises(ValueError, match=message):
        backend.matmul(cuda.zeros((2, 3)), cuda.zeros((4, 5)))
    with pytest.raises(ValueError, match="broadcast"):
        backend.matmul(cuda.zeros((2, 4, 3)), cuda.zeros((3, 3, 5)))


def test_not_finite(cuda, backend):
    a, b = np.array([[np.nan, 1.0], [np.inf, -1.0], [0.0, 2.0]]), np.array([[0.0, 1.0], [3.0, np.inf]])
    with np.errstate(invalid="ignore"):
        want = a @ b
    np.testing.assert_array_equal(backend.matmul(cuda.asarray(a), cuda.asarray(b)).get(), want)


# -- the fully connected layer ---------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("features, out", [(7, 3), (6, 8), (9, 300), (0, 3)])
def test_linear(cuda, backend, features, out, dtype, rng):
    for lead in ((5,), (3, 2), (), (70,), (0,)):
        x, w, b, gy = (
            rng.standard_normal(s).astype(dtype) for s in ((*lead, features), (out, features), (out,), (*lead, out))
        )
        arrays = [cuda.asarray(v) for v in (x, w, b, gy)]
        for bias, there in ((b, arrays[2]), (None, None)):
            for relu in (False, True):
                close(backend.linear(*arrays[:2], there, relu), BASE.linear(x, w, bias, relu), dtype)
        for needs in ((True, True, True), (False, True, False), (True, False, True)):
            got = backend.linear_backward(arrays[3], *arrays[:2], needs)
            for g, e in zip(got, BASE.linear_backward(gy, x, w, needs), strict=True):
                assert (g is None) == (e is None)
                if g is not None:
                    close(g, e, dtype)
        for after, before in zip(arrays, (x, w, b, gy), strict=True):
            np.testing.assert_array_equal(after.get(), before)


def test_linear_is_one_product_and_one_kernel(cuda, backend, gemm, monkeypatch, rng):
    from standin import cublas

    names = []
    launch = gemm._kernels.launch
    monkeypatch.setattr(gemm._kernels, "launch", lambda name, *args: (names.append(name), launch(name, *args))[1])
    products = cublas.watch()
    x, w, b = (cuda.asarray(rng.standard_normal(s).astype(np.float32)) for s in ((6, 5), (8, 5), (8,)))
    backend.linear(x, w, b, True)
    assert (names, len(products)) == (["bias_relu_packs"], 1)
    backend.linear(x, w, None)
    assert (len(names), len(products)) == (1, 2)


def test_linear_passes_nan_on(cuda, backend):
    x, w = np.array([[1.0, np.nan], [2.0, -3.0]], np.float32), np.eye(2, dtype=np.float32)
    got = backend.linear(cuda.asarray(x), cuda.asarray(w), cuda.asarray(np.zeros(2, np.float32)), True).get()
    np.testing.assert_array_equal(got, BASE.linear(x, w, np.zeros(2, np.float32), True))


def test_bias_in_pieces(cuda, gemm, monkeypatch, rng):
    """Matrices of more than 2^31 numbers are finished some rows at a time."""
    y, b = rng.standard_normal((23, 5)), rng.standard_normal(5)
    there = cuda.asarray(y)
    monkeypatch.setattr(gemm, "_INDEX", 16)
    gemm.bias_relu(there, cuda.asarray(b), True)
    np.testing.assert_array_equal(there.get(), np.maximum(y + b, 0))


@each_dtype
@pytest.mark.parametrize(
    "shape", [(1, 1), (5, 3), (1000, 1), (70, 300), (3, 513), (3000, 17), (0, 4), (4, 0), (9, 256)]
)
def test_column_sums(cuda, gemm, shape, dtype, monkeypatch, rng):
    a = rng.standard_normal(shape).astype(dtype)
    want = a.astype(np.float64).sum(axis=0)
    # 3,000 terms of size 1
    bound = 1e-10 if dtype == np.float64 else 1e-4
    for chunk in (gemm._CHUNK, 100):
        monkeypatch.setattr(gemm, "_CHUNK", chunk)
        got = gemm.column_sums(cuda, cuda.asarray(a)).get()
        assert got.dtype == dtype and got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=0, atol=bound)
    np.testing.assert_allclose(gemm.column_sums(cuda, cuda.asarray(a.T.copy()).T).get(), want, rtol=0, atol=bound)


# -- precision -------------------------------------------------------------------------------------


def test_setting():
    assert get_float32_matmul_precision() == "highest"
    with set_float32_matmul_precision("high"):
        with set_float32_matmul_precision("medium"):
            assert get_float32_matmul_precision() == "medium"
        assert get_float32_matmul_precision() == "high"
    assert get_float32_matmul_precision() == "highest"
    setting = set_float32_matmul_precision("medium")
    assert get_float32_matmul_precision() == "medium" and repr(setting) == "set_float32_matmul_precision('medium')"
    set_float32_matmul_precision("highest")
    message = "set_float32_matmul_precision: expected precision to be one of 'highest', 'high', 'medium'"
    with pytest.raises(ValueError, match=message):
        set_float32_matmul_precision("default")
    assert get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("precision, share", [("highest", 2**-19), ("high", 2**-9), ("medium", 2**-6)])
def test_error_of_each_precision(cuda, backend, precision, share, rng):
    """2^(2-p) of the sum of sizes, for p = 11 and 8 bits; at "highest" the rounding of 32 additions."""
    a, b = rng.standard_normal((40, 32)).astype(np.float32), rng.standard_normal((32, 30)).astype(np.float32)
    with set_float32_matmul_precision(precision):
        got = backend.matmul(cuda.asarray(a), cuda.asarray(b)).get()
        double = backend.matmul(cuda.asarray(a.astype(np.float64)), cuda.asarray(b.astype(np.float64))).get()
    a, b = a.astype(np.float64), b.astype(np.float64)
    error = abs(got - a @ b) / (abs(a) @ abs(b))
    assert share / 200 < error.max() < share
    np.testing.assert_allclose(double, a @ b, rtol=0, atol=1e-12)


def test_cards_without_rounded_products(cuda, backend, monkeypatch, rng):
    """Before compute capability 8.0, every precision is float32's."""
    from standin import cublas

    monkeypatch.setattr(cuda.cuda.Device, "compute_capability", "75")
    a = cuda.asarray(rng.standard_normal((4, 4)).astype(np.float32))
    products = cublas.watch()
    for precision in ("highest", "high", "medium"):
        with set_float32_matmul_precision(precision):
            backend.matmul(a, a)
    assert [p.compute for p in products] == [68, 68, 68]


# -- handles, streams and graphs -------------------------------------------------------------------


def test_streams_and_threads(cuda, backend, rng):
    """Products run on the current stream with a workspace of that stream; another thread has its own handle."""
    from standin import cublas

    a, b = rng.standard_normal((4, 5)), rng.standard_normal((5, 3))
    left, right = cuda.asarray(a), cuda.asarray(b)
    products = cublas.watch()
    one, two = cuda.cuda.Stream(non_blocking=True), cuda.cuda.Stream(non_blocking=True)
    for stream in (one, two, one):
        with stream:
            close(backend.matmul(left, right), a @ b, np.float64)
    close(backend.matmul(left, right), a @ b, np.float64)
    assert [p.stream or 0 for p in products] == [one.ptr, two.ptr, one.ptr, 0]

    results = []
    thread = threading.Thread(target=lambda: results.append(backend.matmul(left, right)))
    thread.start()
    thread.join()
    close(results[0], a @ b, np.float64)


def test_devices(cuda, backend, rng):
    from standin import Machine

    Machine.devices = 2
    a, b = rng.standard_normal((4, 5)), rng.standard_normal((5, 3))
    for index in (0, 1, 0):
        with cuda.cuda.Device(index):
            close(backend.matmul(cuda.asarray(a), cuda.asarray(b)), a @ b, np.float64)


def test_capture(cuda, backend, rng):
    """CuPy's own products cannot be captured; these can."""
    x, w, b, gy = (rng.standard_normal(s).astype(np.float32) for s in ((6, 5), (8, 5), (8,), (6, 8)))
    arrays = [cuda.asarray(v) for v in (x, w, b, gy)]

    def step(x, w, b, gy):
        return backend.linear(x, w, b, True), *backend.linear_backward(gy, x, w, (True, True, True))

    pool, stream = cuda.cuda.MemoryPool(), cuda.cuda.Stream(non_blocking=True)
    with stream:
        step(*arrays)
        with cuda.cuda.using_allocator(pool.malloc):
            stream.begin_capture()
            results = step(*arrays)
            graph = stream.end_capture()
        for _ in range(2):
            new = [rng.standard_normal(v.shape).astype(np.float32) for v in (x, w, b, gy)]
            for a, value in zip(arrays, new, strict=True):
                a[...] = cuda.asarray(value)
            graph.launch(stream)
            want = [BASE.linear(*new[:3], True), *BASE.linear_backward(new[3], new[0], new[1], (True, True, True))]
            for g, e in zip(results, want, strict=True):
                close(g, e, np.float32)


def test_operands_that_reach_beyond_their_arrays_are_found(cuda, gemm, monkeypatch, capfd):
    """By the stand-in, on a device nobody would."""
    from nnx.backends.cuda import _cublas

    stack = cuda.zeros((3, 4, 4))
    monkeypatch.setattr(_cublas, "_step", lambda x: 17)
    with pytest.raises(RuntimeError, match="cuBLAS: expected a product, got status 14"):
        _cublas.multiply(cuda.zeros((3, 4, 4)), stack, stack)
    assert "operand a of a product is not inside of an array" in capfd.readouterr().err


def test_what_cublas_refuses_is_an_error(cuda, gemm, monkeypatch):
    from nnx.backends.cuda import _cublas

    a = cuda.zeros((4, 6))[:, ::2]
    assert not _cublas.is_operand(a)
    with pytest.raises(ValueError, match="multiply: expected matrices whose rows or columns have no gaps"):
        _cublas.multiply(cuda.zeros((4, 4)), a, cuda.zeros((3, 4)))
    monkeypatch.setattr(_cublas, "_layout", lambda x: (0, 1))
    with pytest.raises(RuntimeError, match=r"cuBLAS: expected a product, got status 7 \(cublasStatus_t\)"):
        _cublas.multiply(cuda.zeros((4, 4)), cuda.zeros((4, 3)), cuda.zeros((3, 4)))
