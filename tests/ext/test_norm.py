"""ext/norm.pyx and ext/local_response.pyx against plain NumPy in float64: at every level, for every tile shape, and
what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from nnx._ext import local_response, norm

# float32: a few roundings of values near 1; sums are taken in double
ATOL = {np.float32: 2e-6, np.float64: 1e-13}

# (rows, columns): rows folded into wide ones and left over, one tile, many tiles down and across, a narrow last tile
MATRICES = [
    (1, 1),
    (5, 1),
    (40_001, 1),
    (65, 3),
    (16_411, 3),
    (7, 31),
    (1_100, 31),
    (9, 32),
    (1_030, 33),
    (63, 255),
    (64, 256),
    (65, 257),
    (200, 700),
    (1, 1_000),
]
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
each_matrix = pytest.mark.parametrize("shape", MATRICES, ids=lambda s: "x".join(map(str, s)))


def guarded(shape, dtype, value=7.0):
    """An array to write into, and a check that nothing around it was written."""
    n = int(np.prod(shape))
    memory = np.full(n + 64, value, dtype)
    array = memory[32 : 32 + n].reshape(shape)

    def intact():
        return (memory[:32] == value).all() and (memory[32 + n :] == value).all()

    return array, intact


def bits(a):
    """The bytes of an array; which sign a NaN has depends on the order of operands in the compiled code."""
    return np.where(np.isnan(a), a.dtype.type(np.nan), a).tobytes()


def standardised(x, axis):
    exact = x.astype(np.float64)
    mean, var = exact.mean(axis, keepdims=True), exact.var(axis, keepdims=True)
    return (exact - mean) / np.sqrt(var + 1e-5), mean, var


# -- per channel -----------------------------------------------------------------------------------


@each_dtype
@each_matrix
def test_moments_and_normalize(level, shape, dtype, rng):
    rows, columns = shape
    x = (rng.standard_normal(shape) * 2 + 3).astype(dtype)
    w, b = rng.standard_normal((2, columns)).astype(dtype)
    (mean, a), (var, c), (rstd, d) = (guarded(columns, dtype) for _ in range(3))
    norm.moments(x, mean, var, 1)
    z, exact_mean, exact_var = standardised(x, 0)
    np.testing.assert_allclose(mean, exact_mean[0], rtol=0, atol=ATOL[dtype] * 4)
    np.testing.assert_allclose(var, exact_var[0], rtol=0, atol=ATOL[dtype] * 20)
    y, e = guarded(shape, dtype)
    norm.normalize(x, y, mean, var, w, b, rstd, 1e-5, False, 1)
    # a single row has variance 0, and a rounding of its mean is divided by sqrt(eps)
    atol = ATOL[dtype] * (8 if rows > 5 else 4000)
    np.testing.assert_allclose(y, z * w + b, rtol=0, atol=atol)
    np.testing.assert_allclose(rstd, 1 / np.sqrt(exact_var[0] + 1e-5), rtol=1e-4)
    norm.normalize(x, y, mean, var, None, None, rstd, 1e-5, False, 1)
    np.testing.assert_allclose(y, z, rtol=0, atol=atol)
    assert all(intact() for intact in (a, c, d, e))


@each_dtype
@each_matrix
def test_positive_part(level, shape, dtype, rng):
    """With relu=True the result is that of relu(normalize), bit for bit, NaN included."""
    x = rng.standard_normal(shape).astype(dtype)
    x.flat[0] = np.nan
    mean, var, w, b = np.abs(rng.standard_normal((4, shape[1]))).astype(dtype)
    plain, positive, rstd = np.empty_like(x), np.empty_like(x), np.empty_like(mean)
    norm.normalize(x, plain, mean, var, w, b, rstd, 1e-5, False, 2)
    norm.normalize(x, positive, mean, var, w, b, rstd, 1e-5, True, 2)
    np.testing.assert_array_equal(positive, np.where(plain <= 0, 0, plain))


@each_dtype
@each_matrix
@pytest.mark.parametrize("from_batch", [True, False])
def test_normalize_backward(level, shape, dtype, from_batch, rng):
    rows, columns = shape
    x, gy = rng.standard_normal((2, *shape)).astype(dtype)
    mean, w = rng.standard_normal((2, columns)).astype(dtype)
    rstd = rng.uniform(0.5, 2, columns).astype(dtype)
    (gx, a), (gw, c), (gb, d) = guarded(shape, dtype), guarded(columns, dtype), guarded(columns, dtype)
    norm.normalize_backward(gy, x, gx, mean, rstd, w, gw, gb, from_batch, 1)
    z = (x.astype(np.float64) - mean) * rstd
    sum_g, sum_gz = gy.sum(0, dtype=np.float64), (gy * z).sum(0)
    expected = (gy - (sum_g + z * sum_gz) / rows if from_batch else gy) * w * rstd
    scale = ATOL[dtype] * 20
    np.testing.assert_allclose(gb, sum_g, rtol=0, atol=scale * np.sqrt(rows))
    np.testing.assert_allclose(gw, sum_gz, rtol=0, atol=scale * np.sqrt(rows))
    np.testing.assert_allclose(gx, expected, rtol=0, atol=scale * max(np.abs(expected).max(), 1))
    assert a() and c() and d()
    only = np.full(columns, 7, dtype)
    norm.normalize_backward(gy, x, None, mean, rstd, None, None, only, from_batch, 1)
    np.testing.assert_array_equal(only, gb)
    norm.normalize_backward(gy, x, None, mean, rstd, None, only, None, from_batch, 1)
    np.testing.assert_array_equal(only, gw)
    alone = np.empty_like(gx)
    norm.normalize_backward(gy, x, alone, mean, rstd, w, None, None, from_batch, 3)
    np.testing.assert_array_equal(alone, gx)


@each_dtype
@each_matrix
def test_normalize_backward_behind_a_positive_part(level, shape, dtype, rng):
    """The same bits as of a gradient that was masked where the result is not positive; NaN lets it pass."""
    rows, columns = shape
    x, gy = rng.standard_normal((2, *shape)).astype(dtype)
    with_nan = np.where(rng.random(shape) < 0.001, np.nan, x).astype(dtype)
    mean, w, b = rng.standard_normal((3, columns)).astype(dtype)
    at_mean = rng.random(shape) < 0.1  # the result is the bias there, in column 0, or 0
    x[at_mean] = with_nan[at_mean] = mean[0]
    var, rstd = rng.uniform(0.5, 2, columns).astype(dtype), np.empty(columns, dtype)
    for values in (x, with_nan):  # a NaN hides what the rest of its column does to gx
        for bias in (b, None):
            y = np.empty_like(x)
            norm.normalize(values, y, mean, var, w, bias, rstd, 0.1, True, 2)
            if x.size > 50:  # fewer may be of one sign
                assert (y == 0).any() and (y > 0).any()
            results = []
            for gradient, relu in ((np.where(y <= 0, 0, gy).astype(dtype), False), (gy, True)):
                gx, gw, gb = np.full(shape, 7, dtype), np.full(columns, 7, dtype), np.full(columns, 7, dtype)
                norm.normalize_backward(gradient, values, gx, mean, rstd, w, gw, gb, True, 2, relu, bias)
                results.append([bits(a) for a in (gx, gw, gb)])
            assert results[0] == results[1]


@each_dtype
@each_matrix
@pytest.mark.parametrize("relu", (False, True))
def test_a_gradient_that_is_applied_later(level, shape, dtype, relu, rng):
    x, gy = rng.standard_normal((2, *shape)).astype(dtype)
    mean, w, b = rng.standard_normal((3, shape[1])).astype(dtype)
    rstd = rng.uniform(0.5, 2, shape[1]).astype(dtype)
    at_once, gradients = np.empty_like(x), np.empty((2, 2, shape[1]), dtype)
    norm.normalize_backward(gy, x, at_once, mean, rstd, w, *gradients[0], True, 2, relu, b)
    (factors, whole), (later, also) = guarded((4, shape[1]), dtype), guarded(shape, dtype)
    norm.normalize_backward(gy, x, None, mean, rstd, w, *gradients[1], True, 3, relu, b, factors)
    norm.apply_gradient(gy, x, later, mean, factors, relu, 2)
    assert whole() and also()
    np.testing.assert_array_equal(later, at_once)
    np.testing.assert_array_equal(*gradients)


@each_dtype
def test_parts_of_a_matrix_have_the_same_bits(level, dtype, rng):
    """Whatever rows and columns are taken together, and where the last ones lie."""
    for columns in (1, 5, 16, 17, 40, 64, 100):
        x, added = rng.standard_normal((2, 37, columns)).astype(dtype)
        mean, w, b, rstd = rng.standard_normal((4, columns)).astype(dtype)
        factors = rng.standard_normal((4, columns)).astype(dtype)
        var = rng.uniform(0.5, 2, columns).astype(dtype)
        for relu in (False, True):
            y, gx = np.empty((2, *x.shape), dtype)
            norm.normalize(x, y, mean, var, w, b, rstd, 0.1, relu, 1, added)
            norm.apply_gradient(added, x, gx, mean, factors, relu, 1)
            for rows in (1, 2, 3, 7):
                part, part_gx = np.empty((2, rows, columns), dtype)
                norm.normalize(x[:rows], part, mean, var, w, b, rstd, 0.1, relu, 1, added[:rows])
                norm.apply_gradient(added[:rows], x[:rows], part_gx, mean, factors, relu, 1)
                np.testing.assert_array_equal(part, y[:rows])
                np.testing.assert_array_equal(part_gx, gx[:rows])


@each_dtype
@each_matrix
def test_normalize_and_a_sum(level, shape, dtype, rng):
    """The same bits as one after the other; and moments give the same rstd as normalize."""
    x, added = rng.standard_normal((2, *shape)).astype(dtype)
    mean, var, rstd, same, w, b = rng.standard_normal((6, shape[1])).astype(dtype)
    norm.moments(x, mean, var, 2, rstd, 0.1)
    for weight, relu in ((w, False), (None, True)):
        alone, y = np.empty_like(x), np.full(shape, 7, dtype)
        norm.normalize(x, alone, mean, var, weight, b, same, 0.1, False, 2)
        np.testing.assert_array_equal(rstd, same)
        norm.normalize(x, y, mean, var, weight, b, same, 0.1, relu, 2, added)
        total = alone + added
        np.testing.assert_array_equal(y, np.maximum(total, 0) if relu else total)


@each_dtype
@pytest.mark.parametrize("columns", [0, 1, 5, 33])
def test_track(columns, dtype, rng):
    """Between the bits of NumPy's operations and those that round once less."""
    mean, var = rng.standard_normal((2, columns)).astype(dtype)
    for skipped in (None, 0, 1):
        pairs = [guarded(columns, dtype) for _ in range(2)]
        before = rng.standard_normal((2, columns)).astype(dtype)
        for (running, _), start in zip(pairs, before, strict=True):
            running[...] = start
        given = [None if i == skipped else running for i, (running, _) in enumerate(pairs)]
        norm.track(*given, mean, var, 0.125, 1.5)
        expected = before * dtype(0.875) + dtype(0.125) * np.stack([mean, var * dtype(1.5)])
        for i, (running, _) in enumerate(pairs):
            exact = before[i] if i == skipped else expected[i]
            np.testing.assert_allclose(running, exact, rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps)
        assert all(intact() for _, intact in pairs)


@each_dtype
def test_same_bits_for_any_number_of_threads(level, dtype, rng):
    for shape in MATRICES:
        x, gy = rng.standard_normal((2, *shape)).astype(dtype)
        results = []
        for threads in (1, 2, 3, 5):
            mean, var, rstd, gw, gb = np.empty((5, shape[1]), dtype)
            y, gx = np.empty((2, *shape), dtype)
            norm.moments(x, mean, var, threads)
            norm.normalize(x, y, mean, var, mean, var, rstd, 1e-5, False, threads)
            norm.normalize_backward(gy, x, gx, mean, rstd, var, gw, gb, True, threads)
            results.append(b"".join(a.tobytes() for a in (mean, var, rstd, y, gx, gw, gb)))
        assert len(set(results)) == 1


# -- per row ---------------------------------------------------------------------------------------

ROWS = [(1, 1, 1), (6, 1, 3), (6, 15, 1), (6, 16, 2), (6, 17, 3), (300, 33, 1), (300, 300, 100), (70, 513, 7)]
each_rows = pytest.mark.parametrize("shape", ROWS, ids=lambda s: "x".join(map(str, s)))


@each_dtype
@each_rows
@pytest.mark.parametrize("with_weight", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
def test_row_norm(level, shape, dtype, with_weight, with_bias, rng):
    rows, width, period = shape
    x = (rng.standard_normal((rows, width)) * 2 + 3).astype(dtype)
    w, b = rng.standard_normal((2, period, width)).astype(dtype)
    (y, a), (mean, c), (var, d), (rstd, e) = guarded((rows, width), dtype), *(guarded(rows, dtype) for _ in range(3))
    norm.row_norm(x, y, w if with_weight else None, b if with_bias else None, mean, var, rstd, 1e-5, 1)
    z, exact_mean, exact_var = standardised(x, 1)
    repeat = rows // period
    expected = z * (np.tile(w, (repeat, 1)) if with_weight else 1) + (np.tile(b, (repeat, 1)) if with_bias else 0)
    np.testing.assert_allclose(y, expected, rtol=0, atol=ATOL[dtype] * (8 if width > 5 else 4000))
    np.testing.assert_allclose(mean, exact_mean[:, 0], rtol=0, atol=ATOL[dtype] * 4)
    np.testing.assert_allclose(var, exact_var[:, 0], rtol=0, atol=ATOL[dtype] * 20)
    assert a() and c() and d() and e()


@each_dtype
@each_rows
def test_row_norm_backward(level, shape, dtype, rng):
    rows, width, period = shape
    x, gy = rng.standard_normal((2, rows, width)).astype(dtype)
    w = rng.standard_normal((period, width)).astype(dtype)
    mean, rstd = rng.standard_normal(rows).astype(dtype), rng.uniform(0.5, 2, rows).astype(dtype)
    (gx, a), (gw, c), (gb, d) = (guarded(s, dtype) for s in ((rows, width), (period, width), (period, width)))
    norm.row_norm_backward(gy, x, gx, w, mean, rstd, gw, gb, period, 1)
    z = (x.astype(np.float64) - mean[:, None]) * rstd[:, None]
    g = gy * np.tile(w, (rows // period, 1)).astype(np.float64)
    expected = (g - g.mean(1, keepdims=True) - z * (g * z).mean(1, keepdims=True)) * rstd[:, None]
    scale = ATOL[dtype] * 20
    np.testing.assert_allclose(gx, expected, rtol=0, atol=scale * max(np.abs(expected).max(), 1))
    by_period = (rows // period, period, width)
    np.testing.assert_allclose(gw, (gy * z).reshape(by_period).sum(0), rtol=0, atol=scale * np.sqrt(rows))
    np.testing.assert_allclose(gb, gy.reshape(by_period).sum(0, dtype=float), rtol=0, atol=scale * np.sqrt(rows))
    assert a() and c() and d()
    for threads in (1, 3):
        others = np.empty_like(gx), np.empty_like(gw), np.empty_like(gb)
        norm.row_norm_backward(gy, x, others[0], w, mean, rstd, others[1], others[2], period, threads)
        assert [o.tobytes() for o in others] == [o.tobytes() for o in (gx, gw, gb)]


# -- across channels -------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("beta", [0.75, 0.6])
@pytest.mark.parametrize("window", [(0, 0), (2, 2), (1, 0), (0, 3), (local_response.REACH, local_response.REACH)])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 64), (5, 65), (300, 129)])
def test_response(level, shape, window, beta, dtype, rng):
    below, above = window
    x, gy = rng.standard_normal((2, *shape)).astype(dtype)
    (y, a), (scale, c), (gx, d) = (guarded(shape, dtype) for _ in range(3))
    local_response.response(x, y, scale, below, above, 0.3, beta, 1.5, 1)

    def window_sum(v, below, above):
        padded = np.pad(v.astype(np.float64), ((0, 0), (below, above)))
        return sum(padded[:, i : i + v.shape[1]] for i in range(below + above + 1))

    exact = 1.5 + 0.3 * window_sum(x.astype(np.float64) ** 2, below, above)
    np.testing.assert_allclose(scale, exact, rtol=ATOL[dtype])
    np.testing.assert_allclose(y, x * exact**-beta, rtol=0, atol=ATOL[dtype])
    local_response.response_backward(gy, x, scale, gx, below, above, 0.4, beta, 1)
    inner = window_sum(gy * x * exact ** (-beta - 1), below, above)
    np.testing.assert_allclose(gx, gy * exact**-beta - 0.4 * x * inner, rtol=0, atol=ATOL[dtype] * 10)
    assert a() and c() and d()


# -- what is refused -------------------------------------------------------------------------------

X, V, W = np.ones((4, 3)), np.ones(3), np.ones((1, 3))
F32 = np.ones((4, 3), np.float32)
SUMS = np.ones((2, 2, 3))


def frozen(a):
    a = a.copy()
    a.flags.writeable = False
    return a


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: norm.moments(X, V[:2], V, 1), ValueError, "moments: expected mean with 3 elements"),
        (lambda: norm.moments(X, V, F32[0], 1), TypeError, "moments: expected var to be float64"),
        (lambda: norm.moments(X.T, np.ones(4), np.ones(4), 1), ValueError, "moments: expected x to be C-contiguous"),
        (lambda: norm.moments(X[:0], V, V, 1), ValueError, "moments: expected x with elements"),
        (lambda: norm.moments(np.array(1.0), V, V, 1), ValueError, "moments: expected x with elements"),
        (lambda: norm.moments(None, V, V, 1), TypeError, "moments: expected x to be an array, got None"),
        (lambda: norm.moments(X, frozen(V), V, 1), ValueError, "moments: expected mean to be writeable"),
        (lambda: norm.moments(X, V, V, 0), ValueError, "moments: expected num_threads to be at least 1"),
        (lambda: norm.moments(X.astype(int), V, V, 1), TypeError, "moments: expected x to be float32 or float64"),
        (lambda: norm.normalize(X, X[:3], V, V, None, None, V, 1e-5, False, 1), ValueError,
         "normalize: expected y with 12 elements"),
        (lambda: norm.normalize(X, X, V, V, np.ones(4), None, V, 1e-5, False, 1), ValueError,
         "normalize: expected weight with 3 elements"),
        (lambda: norm.normalize(X, X, V, V, None, F32[0], V, 1e-5, False, 1), TypeError, "expected bias to be float64"),
        (lambda: norm.normalize(X, frozen(X), V, V, None, None, V, 1e-5, False, 1), ValueError,
         "expected y to be writeable"),
        (lambda: norm.normalize_backward(X[:2], X, X, V, V, None, None, None, True, 1), ValueError,
         "normalize_backward: expected gy with 12 elements"),
        (lambda: norm.normalize_backward(X, X, None, V, V, None, np.ones(2), None, True, 1), ValueError,
         "normalize_backward: expected gw with 3 elements"),
        (lambda: norm.normalize_backward(X, X, X.copy(), V, V, None, None, None, True, 1, True, V[:2]), ValueError,
         "normalize_backward: expected bias with 3 elements"),
        (lambda: norm.normalize_backward(X, X, X.copy(), V, V, None, None, None, False, 1, True), ValueError,
         "normalize_backward: expected relu only with from_batch, got it without"),
        (lambda: norm.normalize_backward(X, X, X.copy(), V, V, None, None, None, True, 1, False, None, np.ones((4, 3))),
         ValueError, "normalize_backward: expected factors only with from_batch and .* gx, got from_batch=True and gx"),
        (lambda: norm.normalize_backward(X, X, None, V, V, None, None, None, False, 1, False, None, np.ones((4, 3))),
         ValueError, "expected factors only with from_batch and without gx, got from_batch=False and no gx"),
        (lambda: norm.normalize_backward(X, X, None, V, V, None, None, None, True, 1, False, None, np.ones((3, 3))),
         ValueError, "normalize_backward: expected factors with 12 elements"),
        (lambda: norm.normalize_backward(
            X, X, None, V, V, None, None, None, True, 1, False, None, np.ones((4, 3)), np.ones((2, 2, 3))), ValueError,
         "normalize_backward: expected sums with 6 elements"),
        (lambda: norm.apply_gradient(X, X, X.copy(), V, np.ones((3, 3)), False, 1), ValueError,
         "apply_gradient: expected factors with 12 elements"),
        (lambda: norm.apply_gradient(X[:2], X, X.copy(), V, np.ones((4, 3)), False, 1), ValueError,
         "apply_gradient: expected gy with 12 elements"),
        (lambda: norm.apply_gradient(X, X, frozen(X), V, np.ones((4, 3)), False, 1), ValueError,
         "apply_gradient: expected gx to be writeable"),
        (lambda: norm.apply_gradient(X, X, X.copy(), V, np.ones((4, 3)), False, 0), ValueError,
         "apply_gradient: expected num_threads to be at least 1"),
        (lambda: norm.normalize(X, X.copy(), V, V, None, V, V, 1e-5, False, 1, X[:2]), ValueError,
         "normalize: expected added with 12 elements"),
        (lambda: norm.normalize(X, X.copy(), V, V, None, None, V, 1e-5, False, 1, X), ValueError,
         "normalize: expected added only with a bias, got it without"),
        (lambda: norm.track(V, V, None, V, 0.1, 1), TypeError, "track: expected mean to be an array, got None"),
        (lambda: norm.track(V, V, V, V[:2], 0.1, 1), ValueError, "track: expected var with 3 elements"),
        (lambda: norm.track(V[:2], V, V, V, 0.1, 1), ValueError, "track: expected running_mean with 3 elements"),
        (lambda: norm.track(None, F32[0], V, V, 0.1, 1), TypeError, "track: expected running_var to be float64"),
        (lambda: norm.track(None, frozen(V), V, V, 0.1, 1), ValueError, "track: expected running_var to be writeable"),
        (lambda: norm.moments(X, V, V, 1, V[:2], 1e-5), ValueError, "moments: expected rstd with 3 elements"),
        (lambda: norm.row_norm(X, X, np.ones((3, 3)), None, V, V, V, 1e-5, 1), ValueError,
         r"row_norm: expected weight and bias of shape \(P, 3\) where P divides 4, got \(3, 3\)"),
        (lambda: norm.row_norm(X, X, np.ones((0, 3)), None, V, V, V, 1e-5, 1), ValueError, "where P divides 4"),
        (lambda: norm.row_norm(X, X, W, np.ones((2, 3)), *np.ones((3, 4)), 1e-5, 1), ValueError,
         "row_norm: expected bias with 3 elements"),
        (lambda: norm.row_norm(X, X, V, None, *np.ones((3, 4)), 1e-5, 1), ValueError,
         "row_norm: expected weight and bias with 2 dimensions"),
        (lambda: norm.row_norm(X[None], X, None, None, *np.ones((3, 4)), 1e-5, 1), ValueError,
         "row_norm: expected x with 2 dimensions"),
        (lambda: norm.row_norm(X, X, None, None, V, *np.ones((2, 4)), 1e-5, 1), ValueError,
         "row_norm: expected mean with 4 elements"),
        (lambda: norm.row_norm_backward(X, X, X, None, *np.ones((2, 4)), None, None, 3, 1), ValueError,
         "row_norm_backward: expected period to divide 4, got 3"),
        (lambda: norm.row_norm_backward(X, X, X, None, *np.ones((2, 4)), None, None, 0, 1), ValueError,
         "row_norm_backward: expected period to divide 4, got 0"),
        (lambda: norm.row_norm_backward(X, X, None, None, *np.ones((2, 4)), W, None, 2, 1), ValueError,
         "row_norm_backward: expected gw with 6 elements"),
        (lambda: local_response.response(X, X, X, local_response.REACH + 1, 0, 1, 1, 1, 1), ValueError,
         "response: expected a window of at most 32 channels to either side, got 33 and 0"),
        (lambda: local_response.response(X, X, X, 0, -1, 1, 1, 1, 1), ValueError, "response: expected a window"),
        (lambda: local_response.response_backward(X, X, X, frozen(X), 1, 1, 1, 1, 1), ValueError,
         "response_backward: expected gx to be writeable"),
        (lambda: local_response.response_backward(X, X, X[:1], X, 1, 1, 1, 1, 1), ValueError,
         "response_backward: expected scale with 12 elements"),
    ],
)  # fmt: skip
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rows": 11}, ValueError, r"expected sums \(2, P, C\) for parts of 5 out of 11 rows, got \(2, 2, 3\)"),
        ({"height": 0, "rows": 0}, ValueError, "expected sums .* for parts of 0 out of 0 rows"),
        ({"sums": SUMS[0]}, ValueError, r"expected sums .* got \(2, 3\)"),
        ({"sums": SUMS.astype(np.float32)}, TypeError, "expected sums to be float64"),
        ({"mean": None}, TypeError, "expected mean to be an array, got None"),
        ({"var": F32[0, :2]}, ValueError, "expected var with 3 elements"),
        ({"rstd": V}, TypeError, "expected rstd to be float32"),
    ],
)
def test_errors_of_moments_of_sums(change, error, message):
    good = {"sums": SUMS, "height": 5, "rows": 10, "mean": F32[0], "var": F32[1], "rstd": F32[2], "eps": 0}
    with pytest.raises(error, match=f"moments_of_sums: {message}"):
        norm.moments_of_sums(*(good | change).values())
