"""The kernels of normalisation in the emulator, beside the base backend."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from compared import BASE, DTYPES, backend, channels_last, layouts, same

# (N, C, spatial...): one channel, packs and none, several tiles of 32 channels, one chunk of pixels and many
IMAGES = [
    (5, 3),
    (300, 100),
    (3, 1, 17, 5),
    (2, 4, 3, 5),
    (2, 3, 2, 3, 2),
    (9, 37, 11),
    (4, 32, 9, 7),
    (3, 64, 5, 5),
    (2, 33, 40),
    (7, 5, 31, 29),
]
NEEDS = [n for n in product((True, False), repeat=3) if any(n)]
# Sums over some thousand float32 numbers, in another order than the base's.
LONG = {"float32": {"rtol": 1e-5, "atol": 1e-5}, "float64": {"rtol": 1e-10, "atol": 1e-12}}

each_dtype = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture
def be(cuda):
    from nnx.backends.cuda.norm import NormCUDA

    return backend(cuda, NormCUDA)


@pytest.fixture
def launched(be, monkeypatch):
    """The names of the kernels that were launched."""
    from nnx.backends.cuda import norm

    names: list[str] = []
    launch = norm._k.launch

    def record(name, *args):
        names.append(name)
        launch(name, *args)

    monkeypatch.setattr(norm._k, "launch", record)
    return names


def normal(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def parameters(channels, dtype):
    return normal(channels, dtype, 1), normal(channels, dtype, 2)


# -- per channel -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", IMAGES, ids=str)
@each_dtype
def test_batch_norm(cuda, be, launched, shape, dtype):
    x = 3 * normal(shape, dtype) + 1
    weight, bias = parameters(shape[1], dtype)
    w, b = cuda.asarray(weight), cuda.asarray(bias)
    for there in (cuda.asarray(x), channels_last(cuda, x)):
        same(be.batch_moments(there), BASE.batch_moments(x))
        for relu in (False, True):
            same(be.batch_norm(there, w, b, 1e-5, relu), BASE.batch_norm(x, weight, bias, 1e-5, relu), **LONG[dtype])
            _, mean, var, _ = BASE.batch_moments(x) * 2
            m, v = cuda.asarray(mean), cuda.asarray(var)
            same(
                be.batch_norm_infer(there, m, v, w, b, 0.1, relu),
                BASE.batch_norm_infer(x, mean, var, weight, bias, 0.1, relu),
            )
    assert len(launched) == 2 * (2 + 2 * (3 + 1))


@pytest.mark.parametrize("shape", IMAGES, ids=str)
@each_dtype
def test_batch_norm_gradients(cuda, be, shape, dtype):
    x, gy = 3 * normal(shape, dtype) + 1, normal(shape, dtype, 3)
    weight = normal(shape[1], dtype, 1)
    y, mean, var, rstd = BASE.batch_norm(x, None, None, 1e-5, True)
    y.ravel()[::17] = np.nan  # passes the gradient on
    w, m, v, r = (cuda.asarray(a) for a in (weight, mean, var, rstd))
    for there, g in ((cuda.asarray(x), channels_last(cuda, gy)), (channels_last(cuda, x), cuda.asarray(gy))):
        for needs in NEEDS[:: 1 if x.size < 3000 else 5]:
            expected = BASE.batch_norm_backward(gy, x, weight, mean, rstd, needs)
            same(be.batch_norm_backward(g, there, w, m, r, needs), expected, **LONG[dtype])
            expected = BASE.batch_norm_backward(gy, x, weight, mean, rstd, needs, y)
            same(be.batch_norm_backward(g, there, w, m, r, needs, cuda.asarray(y)), expected, **LONG[dtype])
            expected = BASE.batch_norm_infer_backward(gy, x, mean, var, weight, 0.1, needs)
            same(be.batch_norm_infer_backward(g, there, m, v, w, 0.1, needs), expected, **LONG[dtype])


@each_dtype
def test_every_layout_and_missing_parameters(cuda, be, dtype):
    x, gy = normal((3, 8, 5, 7), dtype), normal((3, 8, 5, 7), dtype, 3)
    weight, bias = parameters(8, dtype)
    mean, rstd = BASE.batch_norm(x, None, None, 0.1)[1::2]
    var = BASE.batch_moments(x)[1]
    m, r, v = cuda.asarray(mean), cuda.asarray(rstd), cuda.asarray(var)
    all_of_it = (True, True, True)
    for layout, there in layouts(cuda, x):
        for w, b in ((None, None), (weight, None), (None, bias), (weight, bias)):
            there_w, there_b = (None if a is None else cuda.asarray(np.repeat(a, 2))[::2] for a in (w, b))
            same(be.batch_norm(there, there_w, there_b, 0.1), BASE.batch_norm(x, w, b, 0.1), layout)
            same(
                be.batch_norm_infer(there, m, v, there_w, there_b, 0.1), BASE.batch_norm_infer(x, mean, var, w, b, 0.1)
            )
            got = be.batch_norm_backward(cuda.asarray(gy), there, there_w, m, r, all_of_it)
            same(got, BASE.batch_norm_backward(gy, x, w, mean, rstd, all_of_it), layout)
            got = be.batch_norm_infer_backward(cuda.asarray(gy), there, m, v, there_w, 0.1, all_of_it)
            same(got, BASE.batch_norm_infer_backward(gy, x, mean, var, w, 0.1, all_of_it), layout)


@pytest.mark.parametrize("seed", range(3))
def test_moments_lose_no_digits(cuda, be, seed):
    """Large means, one value only, an outlier in the first place: right as in exact arithmetic."""
    x = normal((40, 6, 12, 11), "float64", seed)
    x[:, 1] += 1e4
    x[:, 2] = 1e6 + x[:, 2]
    x[:, 3] = 12345.678
    x[0, 4, 0, 0] = 1e8
    x[:, 5] = np.maximum(x[:, 5], 0)
    x = x.astype("float32")
    wide = x.astype("float64")
    mean, var = (a.get() for a in be.batch_moments(cuda.asarray(x)))
    np.testing.assert_allclose(mean, wide.mean(axis=(0, 2, 3)), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(var, wide.var(axis=(0, 2, 3)), rtol=2e-6, atol=1e-12)
    assert var[3] == 0


@each_dtype
def test_nan_and_infinity_stay_in_their_channel(cuda, be, dtype):
    x = normal((4, 9, 5, 6), dtype)
    x[1, 1, 2, 3], x[0, 2, 0, 0], x[3, 3, 1, 1], x[0, 4, 0, 0] = np.nan, np.inf, -np.inf, np.nan
    x[2, 5, :2, 0], x[0, 6, 0, 0] = (np.inf, -np.inf), -np.inf
    x[:, 7] *= 1e30 if dtype == "float32" else 1e200
    weight, bias = parameters(9, dtype)
    w, b = cuda.asarray(weight), cuda.asarray(bias)
    for there in (cuda.asarray(x), channels_last(cuda, x)):
        y, mean, var, rstd = expected = BASE.batch_norm(x, weight, bias, 1e-5, True)
        same(be.batch_norm(there, w, b, 1e-5, True), expected)
        gy = normal(x.shape, dtype, 3)
        gy[0, 8, 0, :2] = np.nan, np.inf
        needs = (True, True, True)
        got = be.batch_norm_backward(cuda.asarray(gy), there, w, cuda.asarray(mean), cuda.asarray(rstd), needs)
        same(got, BASE.batch_norm_backward(gy, x, weight, mean, rstd, needs), **LONG[dtype])


@pytest.mark.parametrize("blocks", [1, 3])
def test_chunks_of_many_pixels(cuda, be, monkeypatch, blocks):
    from nnx.backends.cuda import norm

    monkeypatch.setattr(norm, "_BLOCKS", blocks)
    monkeypatch.setattr(norm, "_MOST_BLOCKS", blocks)
    x, gy = 3 * normal((7, 5, 31, 29), "float32") + 1, normal((7, 5, 31, 29), "float32", 3)
    expected = BASE.batch_norm(x, None, None, 1e-5)
    got = be.batch_norm(cuda.asarray(x), None, None, 1e-5)
    same(got, expected)
    needs = (True, True, True)
    got = be.batch_norm_backward(cuda.asarray(gy), cuda.asarray(x), None, got[1], got[3], needs)
    same(got, BASE.batch_norm_backward(gy, x, None, expected[1], expected[3], needs), **LONG["float32"])
    x, gy = normal((700, 13), "float32"), normal((700, 13), "float32", 3)
    _, mean, _, rstd = BASE.row_norm(x, None, None, 1e-5)
    got = be.row_norm_backward(*map(cuda.asarray, (gy, x)), None, *map(cuda.asarray, (mean, rstd)), 1, needs)
    same(got, BASE.row_norm_backward(gy, x, None, mean, rstd, 1, needs), **LONG["float32"])


def test_the_same_bits_again(cuda, be):
    x, gy = normal((7, 5, 31, 29), "float32"), normal((7, 5, 31, 29), "float32", 3)
    first, second = (be.batch_norm(cuda.asarray(x), None, None, 1e-5) for _ in range(2))
    assert all(a.get().tobytes() == b.get().tobytes() for a, b in zip(first, second, strict=True))
    arguments = cuda.asarray(gy), cuda.asarray(x), None, first[1], first[3], (True, True, True)
    first, second = (be.batch_norm_backward(*arguments) for _ in range(2))
    assert all(a.get().tobytes() == b.get().tobytes() for a, b in zip(first, second, strict=True))


# -- rows --------------------------------------------------------------------------------------

# rows, width, period
ROWS = [
    (5, 1, 1),
    (7, 2, 1),
    (6, 5, 3),
    (6, 5, 6),
    (517, 13, 1),
    (40, 131, 4),
    (3, 1031, 1),
    (4, 1500, 2),
    (70, 64, 1),
    (1100, 3, 1),
]


@pytest.mark.parametrize(("rows", "width", "period"), ROWS)
@each_dtype
def test_row_norm(cuda, be, monkeypatch, rows, width, period, dtype):
    from nnx.backends.cuda import norm

    x, gy = 3 * normal((rows, width), dtype) + 1, normal((rows, width), dtype, 3)
    weight, bias = normal((period, width), dtype, 1), normal((period, width), dtype, 2)
    w, b = cuda.asarray(weight), cuda.asarray(bias)
    _, mean, _, rstd = BASE.row_norm(x, weight, bias, 1e-3)
    m, r = cuda.asarray(mean), cuda.asarray(rstd)
    for most in (norm._MOST_ROWS, 2):  # with 2, blocks take several rows one after the other
        monkeypatch.setattr(norm, "_MOST_ROWS", most)
        same(be.row_norm(cuda.asarray(x), w, b, 1e-3), BASE.row_norm(x, weight, bias, 1e-3), **LONG[dtype])
        for needs in NEEDS[:: 1 if rows * width < 100 else 5]:
            got = be.row_norm_backward(cuda.asarray(gy), cuda.asarray(x), w, m, r, period, needs)
            same(got, BASE.row_norm_backward(gy, x, weight, mean, rstd, period, needs), **LONG[dtype])


@each_dtype
def test_row_norm_in_every_layout_and_with_missing_parameters(cuda, be, dtype):
    x, gy = normal((6, 37), dtype), normal((6, 37), dtype, 3)
    weight, bias = normal((2, 37), dtype, 1), normal((2, 37), dtype, 2)
    all_of_it = (True, True, True)
    for layout, there in layouts(cuda, x):
        for w, b in ((None, None), (weight, None), (None, bias), (weight, bias)):
            there_w, there_b = (None if a is None else cuda.asarray(a.T.copy()).T for a in (w, b))
            expected = BASE.row_norm(x, w, b, 0.1)
            got = be.row_norm(there, there_w, there_b, 0.1)
            same(got, expected, layout)
            period = 1 if w is None and b is None else 2
            got = be.row_norm_backward(cuda.asarray(gy), there, there_w, got[1], got[3], period, all_of_it)
            same(got, BASE.row_norm_backward(gy, x, w, expected[1], expected[3], period, all_of_it), layout)


@each_dtype
def test_rows_with_nan_infinity_and_large_means(cuda, be, dtype):
    x = normal((7, 50), dtype)
    x[0, 3], x[1, 0], x[2, 49], x[3, :2] = np.nan, np.inf, -np.inf, (np.inf, -np.inf)
    x[4], x[5] = 777.25, x[5] + 1e4
    x[6] *= 1e30 if dtype == "float32" else 1e200
    # the row with mean 1e4 has four digits less
    tolerance = {"float32": {"rtol": 1e-5, "atol": 2e-3}, "float64": {"rtol": 1e-10, "atol": 1e-10}}[dtype]
    same(be.row_norm(cuda.asarray(x), None, None, 1e-5), BASE.row_norm(x, None, None, 1e-5), **tolerance)


# -- local response norm -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "size"), [((2, 7, 3, 2), 5), ((2, 7, 3), 4), ((2, 3, 4), 9), ((5, 1), 1), ((3, 70, 9, 5), 5)]
)
@each_dtype
def test_local_response_norm(cuda, be, shape, size, dtype):
    x, gy = normal(shape, dtype), normal(shape, dtype, 3)
    expected = BASE.local_response_norm(x, size, 0.3, 0.75, 2.0)
    gx = BASE.local_response_norm_backward(gy, x, expected[1], size, 0.3, 0.75)
    for layout, there in layouts(cuda, x):
        got = be.local_response_norm(there, size, 0.3, 0.75, 2.0)
        same(got, expected, layout)
        same(be.local_response_norm_backward(channels_last(cuda, gy), there, got[1], size, 0.3, 0.75), gx, layout)


@each_dtype
def test_local_response_of_nan_and_infinity(cuda, be, dtype):
    x, gy = normal((2, 9, 3), dtype), normal((2, 9, 3), dtype, 3)
    x[0, 1, 0], x[0, 5, 1], x[1, 8, 2], x[1, 2] = np.nan, np.inf, -np.inf, 0
    expected = BASE.local_response_norm(x, 3, 0.3, 0.75, 1.0)
    got = be.local_response_norm(cuda.asarray(x), 3, 0.3, 0.75, 1.0)
    same(got, expected)
    gx = BASE.local_response_norm_backward(gy, x, expected[1], 3, 0.3, 0.75)
    same(be.local_response_norm_backward(cuda.asarray(gy), cuda.asarray(x), got[1], 3, 0.3, 0.75), gx)


# -- what the base does ------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4, 4), (2, 3, 0)])
def test_nothing(cuda, be, launched, shape):
    x = np.zeros(shape, np.float32)
    one = np.ones(3, np.float32)
    there, ones = cuda.asarray(x), cuda.asarray(one)
    same(be.batch_moments(there), BASE.batch_moments(x))
    same(be.batch_norm(there, ones, ones, 0.1), BASE.batch_norm(x, one, one, 0.1))
    needs = (True, True, True)
    same(
        be.batch_norm_backward(there, there, ones, ones, ones, needs),
        BASE.batch_norm_backward(x, x, one, one, one, needs),
    )
    same(be.batch_norm_infer(there, ones, ones, ones, ones, 0.1), BASE.batch_norm_infer(x, one, one, one, one, 0.1))
    expected = BASE.batch_norm_infer_backward(x, x, one, one, one, 0.1, needs)
    same(be.batch_norm_infer_backward(there, there, ones, ones, ones, 0.1, needs), expected)
    same(be.local_response_norm(there, 3, 0.3, 0.75, 1.0), BASE.local_response_norm(x, 3, 0.3, 0.75, 1.0))
    assert not launched


@pytest.mark.parametrize("shape", [(0, 3), (4, 0)])
def test_no_rows_or_empty_ones(cuda, be, launched, shape):
    x, one = np.zeros(shape, np.float32), np.ones((2, shape[1]), np.float32)
    there, ones = cuda.asarray(x), cuda.asarray(one)
    same(be.row_norm(there, ones, ones, 0.1), expected := BASE.row_norm(x, one, one, 0.1))
    mean, rstd = expected[1], expected[3]
    got = be.row_norm_backward(there, there, ones, cuda.asarray(mean), cuda.asarray(rstd), 2, (True, True, True))
    same(got, BASE.row_norm_backward(x, x, one, mean, rstd, 2, (True, True, True)))
    assert not launched


def test_other_types_go_to_the_base(cuda, be, launched):
    x = normal((4, 3, 5), "float16")
    there = cuda.asarray(x)
    tolerance = {"rtol": 1e-2, "atol": 1e-2}
    same(be.batch_norm(there, None, None, 0.1), BASE.batch_norm(x, None, None, 0.1), **tolerance)
    same(be.row_norm(there[0], None, None, 0.1), BASE.row_norm(x[0], None, None, 0.1), **tolerance)
    same(be.local_response_norm(there, 3, 0.3, 0.75, 1.0), BASE.local_response_norm(x, 3, 0.3, 0.75, 1.0), **tolerance)
    assert not launched
