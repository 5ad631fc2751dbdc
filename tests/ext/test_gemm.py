"""ext/gemm.pyx against float64 products, at every level, in every orientation."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from nnx._ext import gemm, memory

# an error of a few units in the last place per summed product, growing like the root of their number
TOLERANCE = {np.float32: 2e-6, np.float64: 4e-15}

SHAPES = [
    (1, 1, 1),
    (5, 7, 3),
    (7, 9, 0),  # an empty sum
    (64, 64, 64),  # the largest product that goes to BLAS in one call
    (65, 63, 70),
    (1, 500, 700),  # one row
    (2, 600, 500),
    (500, 1, 700),  # one column
    (13, 1000, 33),
    (97, 131, 1000),  # several passes over the inner dimension
    (700, 600, 100),  # large tiles
    (100, 300, 700),  # columns that are packed by the tasks that multiply them, in several parts
    (32, 500, 600),  # a result that is written across its rows
    (45, 340, 900),
    (32, 250, 440),  # both
]


def _ids(shape):
    return "x".join(map(str, shape))


def matrix(rng, rows, columns, by_columns, dtype):
    shape = (columns, rows) if by_columns else (rows, columns)
    a = rng.standard_normal(shape).astype(dtype)
    return a.T if by_columns else a


@pytest.mark.parametrize("method", ["auto", "blas", "kernel"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=_ids)
def test_product(level, rng, shape, dtype, method):
    m, n, k = shape
    for orientation in range(8):
        a = matrix(rng, m, k, orientation & 1, dtype)
        b = matrix(rng, k, n, orientation & 2, dtype)
        c = matrix(rng, m, n, orientation & 4, dtype)
        bias = rng.standard_normal(n).astype(dtype)
        kept = a.copy(), b.copy(), bias.copy()
        expected = a.astype(np.float64) @ b.astype(np.float64) + bias
        c[...] = np.nan  # whatever was there must not matter
        gemm.product(a, b, c, bias, 2, method)
        scale = np.sqrt(max(k, 1))
        np.testing.assert_allclose(c, expected, rtol=0, atol=TOLERANCE[dtype] * scale * 4)
        assert all(np.array_equal(p, q) for p, q in zip(kept, (a, b, bias), strict=True))
        positive = np.maximum(c, 0)
        c[...] = np.nan
        gemm.product(a, b, c, bias, 2, method, True)
        assert np.array_equal(c, positive)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("few", [1, 2, 3, 4, 5])
def test_few_rows_and_few_columns(level, rng, dtype, few):
    """In every layout, with every tail, of whole numbers: sums are exact. Five rows take the other paths."""
    for k in (0, 1, 3, 8, 15, 16, 17, 41):
        for n in (1, 2, 3, 4, 5, 16, 19, 67, 130, 515):
            for turned in (False, True):
                shape = (n, k, few) if turned else (few, k, n)
                for layout in range(8):
                    a, b, c = (
                        matrix(rng, rows, columns, layout & bit, dtype)
                        for rows, columns, bit in (
                            (shape[0], k, 1),
                            (k, shape[2], 2),
                            (shape[0], shape[2], 4),
                        )
                    )
                    bias = rng.integers(-4, 5, shape[2]).astype(dtype) if layout % 3 else None
                    a[...] = rng.integers(-4, 5, a.shape)
                    b[...] = rng.integers(-4, 5, b.shape)
                    c[...] = np.nan
                    gemm.product(a, b, c, bias, 2, "auto", layout % 2 == 0)
                    expected = a.astype(np.float64) @ b.astype(np.float64) + (0 if bias is None else bias)
                    assert np.array_equal(c, np.maximum(expected, 0) if layout % 2 == 0 else expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [7, 16, 40])
def test_few_rows_touch_nothing_beside_them(level, rng, dtype, columns):
    """Numbers around the operands are NaN: one that was read would show. Those around the result stay."""
    for rows in (1, 2, 3, 4):
        for layout in range(4):
            a, b, c = np.full((6, 60), np.nan, dtype), np.full((60, 60), np.nan, dtype), np.full((6, 60), 7, dtype)
            part = a[1 : 1 + rows, 3:36]
            part[...] = 1
            inner = b[2:35, 5 : 5 + columns] if layout & 1 else b[5 : 5 + columns, 2:35].T
            inner[...] = 2
            out = c[1 : 1 + rows, 4 : 4 + columns]
            if layout & 2:
                gemm.product(inner.T, part.T, out.T, None, 2)
            else:
                gemm.product(part, inner, out, None, 2)
            assert (out == 66).all()
            out[...] = 7
            assert (c == 7).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_slices_and_reversed_rows(level, rng, dtype):
    """Leading dimensions larger than the rows, and rows in reverse, are read in place."""
    big = rng.standard_normal((300, 400)).astype(dtype)
    a, b = big[10:210, 5:155], big[::-1][100:250, 7:130]
    c = np.empty((300, 200), dtype)[:200, 3:126]
    gemm.product(a, b, c, None, 2)
    expected = a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(c, expected, rtol=0, atol=TOLERANCE[dtype] * 4 * np.sqrt(150))


def test_nothing_beside_the_result_is_written(level, rng):
    frame = np.full((70, 90), 7.0, np.float32)
    c = frame[2:66, 3:80]
    a = rng.standard_normal((64, 50)).astype(np.float32)
    b = rng.standard_normal((50, 77)).astype(np.float32)
    gemm.product(a, b, c, None, 2, "kernel")
    c[...] = 7.0
    assert (frame == 7.0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "shape", [(300, 200, 500), (1, 900, 900), (3, 900, 90), (129, 65, 2000), (100, 300, 700), (32, 250, 440)], ids=_ids
)
def test_the_number_of_threads_does_not_change_the_bits(level, rng, shape, dtype):
    m, n, k = shape
    a, b = matrix(rng, m, k, 0, dtype), matrix(rng, k, n, 1, dtype)
    results = []
    for threads in (1, 2, 3, 4, 8):
        c = np.empty((m, n), dtype)
        gemm.product(a, b, c, None, threads)
        results.append(c.tobytes())
    assert len(set(results)) == 1


def test_nan_and_infinity_pass(level):
    a = np.zeros((70, 70), np.float32)
    b = np.ones((70, 70), np.float32)
    a[3, 5], a[4, 6] = np.nan, np.inf
    c = np.empty((70, 70), np.float32)
    for relu in (False, True):
        gemm.product(a, b, c, None, 1, "kernel", relu)
        assert np.isnan(c[3]).all() and np.isposinf(c[4]).all() and (c[5] == 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "shape",
    [(0, 3), (1, 1), (5, 0), (255, 7), (257, 33), (1000, 2), (6001, 6), (17000, 1), (259, 63), (259, 64), (515, 130)],
)
def test_column_sums(level, rng, shape, dtype):
    a = rng.standard_normal(shape).astype(dtype)
    results = []
    for threads in (1, 2, 3):
        out = np.full(shape[1], np.nan, dtype)
        gemm.column_sums(a, out, threads)
        results.append(out.tobytes())
    np.testing.assert_allclose(out, a.astype(np.float64).sum(0), atol=TOLERANCE[dtype] * 100)
    assert len(set(results)) == 1


F = np.float32


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (np.ones((2, 3), F), np.ones((4, 5), F), np.ones((2, 5), F), None, 1),
            ValueError,
            r"gemm: expected shapes \(M, K\), \(K, N\) and \(M, N\), got \(2, 3\), \(4, 5\) and \(2, 5\)",
        ),
        (
            (np.ones((2, 3)), np.ones((3, 5), F), np.ones((2, 5), F), None, 1),
            TypeError,
            "gemm: expected a, b, c of one dtype, got a of float64",
        ),
        (
            (np.ones((2, 3), np.int32), np.ones((3, 5), F), np.ones((2, 5), F), None, 1),
            TypeError,
            "gemm: expected a to be float32 or float64",
        ),
        (
            (np.ones((4, 6), F)[::2, ::2], np.ones((3, 5), F), np.ones((2, 5), F), None, 1),
            ValueError,
            "gemm: expected a to be contiguous along one axis, got strides",
        ),
        (
            (np.ones((2, 3), F), np.ones((3, 5), F), np.ones((2, 5), F), np.ones(4, F), 1),
            ValueError,
            "gemm: expected a contiguous bias of 5 numbers like c, got shape \\(4,\\)",
        ),
        (
            (np.ones((2, 3), F), np.ones((3, 5), F), np.ones((2, 5), F), None, 0),
            ValueError,
            "gemm: expected num_threads to be at least 1, got 0",
        ),
        (
            (np.ones((2, 3), F), np.ones((3, 5), F), np.ones((2, 5), F), None, 1, "fast"),
            ValueError,
            "gemm: expected method 'auto', 'blas' or 'kernel', got 'fast'",
        ),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        gemm.product(*arguments)


def test_a_read_only_result_is_refused():
    c = np.ones((2, 5), F)
    c.flags.writeable = False
    with pytest.raises(ValueError, match="gemm: expected c to be writeable, got a read-only array"):
        gemm.product(np.ones((2, 3), F), np.ones((3, 5), F), c, None, 1)


def test_scratch_memory_can_be_freed(rng):
    previous = memory.set_cache_limit(1 << 30)
    try:
        memory.empty_cache()
        a = rng.standard_normal((300, 300)).astype(F)
        gemm.product(a, a, np.empty_like(a), None, 2, "kernel")
        assert memory.empty_cache() >= a.nbytes
        assert memory.empty_cache() == 0
    finally:
        memory.set_cache_limit(previous)


BIND = """
import sys
import numpy as np
from nnx._ext import blas, gemm
assert "scipy" not in sys.modules
few, c = np.empty((4, 5)), np.empty((5, 5))
gemm.product(np.ones((4, 3)), np.ones((3, 5)), few, None, 1)
assert (few == 3).all() and "scipy" not in sys.modules, "few rows need no BLAS"
gemm.product(np.ones((5, 3)), np.ones((3, 5)), c, None, 1)
assert (c == 3).all()
assert "scipy.linalg" not in sys.modules, "the rest of scipy.linalg was loaded"
import scipy.linalg
import scipy.linalg.cython_blas
assert np.allclose(scipy.linalg.inv(2 * np.eye(3)), np.eye(3) / 2)
assert np.allclose(scipy.linalg.blas.dgemm(1.0, np.ones((2, 2)), np.ones((2, 2))), 2)
gemm.product(np.ones((5, 3)), np.ones((3, 5)), c, None, 1)
assert blas.blas_info()["bound"]
"""


def test_blas_is_bound_at_the_first_product_and_scipy_still_works():
    subprocess.run([sys.executable, "-c", BIND], check=True, timeout=120)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (2, 16, 300), (3, 33, 17), (1, 64, 1000), (0, 3, 4)])
def test_transpose(level, rng, shape, dtype):
    a = rng.standard_normal(shape).astype(dtype)
    for threads in (1, 2):
        out = np.full((shape[0], shape[2], shape[1]), np.nan, dtype)
        gemm.transpose(a, out, threads)
        np.testing.assert_array_equal(out, a.transpose(0, 2, 1))


def test_transpose_errors():
    with pytest.raises(ValueError, match="transpose: expected out to have 4 in dimension 1"):
        gemm.transpose(np.ones((2, 3, 4), F), np.ones((2, 3, 4), F), 1)
    with pytest.raises(ValueError, match="transpose: expected a to be C-contiguous"):
        gemm.transpose(np.ones((2, 3, 4), F)[:, :, ::2], np.ones((2, 2, 3), F), 1)
