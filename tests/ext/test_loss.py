"""The loss kernels: accuracy at every level, bits that depend on the numbers alone, safe arguments."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnx._ext import loss

DTYPES = (np.float32, np.float64)
INF, NAN = math.inf, math.nan

# parameters behind the arrays: of the loss; of its gradient, the first being the factor g
ELEMENTWISE = {
    "squared_error": ((), (1.5,)),
    "absolute_error": ((), (1.5,)),
    "huber": ((0.7,), (1.5, 0.7)),
    "bce_with_logits": ((), (1.5,)),
}


def elementwise(name, x, t, threads=1, gradient=False):
    y = np.empty_like(x)
    kernel = getattr(loss, f"{name}_backward" if gradient else name)
    kernel(x, t, y, *ELEMENTWISE[name][gradient], threads)
    return y


def cross_entropy(x, labels, smoothing=0.0, threads=1):
    parts = [np.empty(len(x), x.dtype) for _ in range(3)]
    loss.cross_entropy(x, labels, *parts, smoothing, threads)
    return parts


def cross_entropy_backward(gy, x, labels, top, total, smoothing=0.0, threads=1):
    gx = np.empty_like(x)
    loss.cross_entropy_backward(gy, x, labels, top, total, gx, smoothing, threads)
    return gx


# -- accuracy --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_bce_with_logits(dtype, level):
    """Right for scores of any size: the loss of a score that agrees with its target tends to 0."""
    mp = pytest.importorskip("mpmath")
    x = np.concatenate([np.linspace(-80, 80, 101), np.random.default_rng(0).standard_normal(200)])
    x = x.astype(dtype)
    t = np.resize(np.array([0, 1], dtype), len(x))
    y, gx = elementwise("bce_with_logits", x, t), elementwise("bce_with_logits", x, t, 1, True)
    with mp.workprec(400):
        s = [1 / (1 + mp.exp(-mp.mpf(float(v)))) for v in x]
        exact = [float(-mp.log(p if u else 1 - p)) for p, u in zip(s, t, strict=True)]
        slopes = [float(1.5 * (p - float(u))) for p, u in zip(s, t, strict=True)]
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(y, exact, rtol=4 * eps)
    np.testing.assert_allclose(gx, slopes, rtol=4 * eps, atol=2 * eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("n", [1, 2, 10, 16, 17, 256, 257, 1000])
def test_cross_entropy(n, smoothing, dtype, level):
    rng = np.random.default_rng(n)
    x = (rng.standard_normal((9, n)) * 5).astype(dtype)
    labels = rng.integers(0, n, 9)
    y, top, total = cross_entropy(x, labels, smoothing)
    wide = x.astype(np.longdouble)
    log_p = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    q = np.full((9, n), smoothing / n)
    q[np.arange(9), labels] += 1 - smoothing
    eps = np.finfo(dtype).eps
    # the errors of sums whose terms are as large as the scores
    np.testing.assert_allclose(y, -(q * log_p).sum(axis=1), rtol=10 * eps, atol=30 * eps)
    gy = rng.standard_normal(9).astype(dtype)
    gx = cross_entropy_backward(gy, x, labels, top, total, smoothing)
    np.testing.assert_allclose(gx, gy[:, None] * (np.exp(log_p) - q), rtol=30 * eps, atol=5 * eps)
    one = cross_entropy_backward(gy[:1], x, labels, top, total, smoothing)
    np.testing.assert_allclose(one, gy[0] * (np.exp(log_p) - q), rtol=30 * eps, atol=5 * eps)


# -- special numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity(dtype, level):
    x = np.array([NAN, 0, INF, -INF, 1, 0], dtype)
    t = np.array([0, NAN, 0, 0, 1, 0], dtype)
    with np.errstate(invalid="ignore"):
        d = x - t
    np.testing.assert_array_equal(elementwise("squared_error", x, t), d * d)
    np.testing.assert_array_equal(elementwise("absolute_error", x, t), np.abs(d))
    slopes = elementwise("absolute_error", x, t, 1, True)
    np.testing.assert_array_equal(slopes, 1.5 * np.sign(d))
    expected = np.array([NAN, NAN, INF, INF, 0, 0])
    np.testing.assert_array_equal(elementwise("huber", x, t), expected)
    slopes = elementwise("huber", x, t, 1, True)
    np.testing.assert_allclose(slopes, [NAN, NAN, 1.05, -1.05, 0, 0], rtol=1e-6)
    y = elementwise("bce_with_logits", x, np.zeros_like(t))
    np.testing.assert_allclose(y[[0, 1, 3, 5]], [NAN, math.log(2), 0, math.log(2)], rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [0, 300])
def test_skipped_rows_count_nothing_whatever_they_hold(columns, dtype, level):
    x = np.array([[NAN, 1, 2], [INF, -INF, 0], [0, 1, 2], [NAN, NAN, NAN]], dtype)
    x = np.concatenate([x, np.zeros((4, columns), dtype)], 1)
    labels = np.array([-1, -1, 1, -1])
    y, top, total = cross_entropy(x, labels, 0.1)
    assert y[[0, 1, 3]].tolist() == [0, 0, 0] and y[2] > 0
    gx = cross_entropy_backward(np.full(4, NAN, dtype), x, labels, top, total, 0.1)
    assert not gx[[0, 1, 3]].any() and np.isnan(gx[2]).all()


# -- bits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_an_element_has_the_same_bits_wherever_it_lies(name, gradient, dtype, level):
    rng = np.random.default_rng(0)
    x, t = (rng.standard_normal((2, 300)) * 3).astype(dtype)
    whole = elementwise(name, x, t, 1, gradient)
    for i in range(0, 300, 7):
        for n in (1, 5, 64, 65, 130):
            part = slice(i, min(i + n, 300))
            alone = elementwise(name, x[part], t[part], 1, gradient)
            assert alone.tobytes() == whole[part].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [3, 37, 256, 257, 400])
def test_a_row_has_the_same_bits_wherever_it_lies(n, dtype, level):
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((40, n)).astype(dtype), rng.integers(-1, n, 40)
    gy = rng.standard_normal(40).astype(dtype)
    y, top, total = cross_entropy(x, labels, 0.1)
    gx = cross_entropy_backward(gy, x, labels, top, total, 0.1)
    for r in range(40):
        part = slice(r, r + 1)
        alone, *rest = cross_entropy(x[part], labels[part], 0.1)
        assert alone.tobytes() == y[part].tobytes()
        g = cross_entropy_backward(gy[part], x[part], labels[part], *rest, 0.1)
        assert g.tobytes() == gx[r].tobytes()


@pytest.mark.parametrize("n", [1, 2, 3, 5, 15, 16, 20])
def test_any_number_of_rows(n):
    """Also where a part of a tile is as long as a whole one: 4 rows of 5, say."""
    rng = np.random.default_rng(0)
    x, labels, gy = rng.standard_normal((40, n)), rng.integers(-1, n, 40), rng.standard_normal(40)
    y, top, total = cross_entropy(x, labels, 0.1)
    gx = cross_entropy_backward(gy, x, labels, top, total, 0.1)
    for rows in range(1, 40):
        part, *rest = cross_entropy(x[:rows], labels[:rows], 0.1)
        assert part.tobytes() == y[:rows].tobytes()
        g = cross_entropy_backward(gy[:rows], x[:rows], labels[:rows], *rest, 0.1)
        assert g.tobytes() == gx[:rows].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_for_any_number_of_threads(dtype):
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((2, 331, 99)).astype(dtype)
    labels, gy = rng.integers(-1, 99, 331), rng.standard_normal(331).astype(dtype)

    def everything(threads):
        parts = cross_entropy(x, labels, 0.1, threads)
        gx = cross_entropy_backward(gy, x, labels, *parts[1:], 0.1, threads)
        rest = [elementwise(n, x, t, threads, g) for n in ELEMENTWISE for g in (False, True)]
        return [a.tobytes() for a in (*parts, gx, *rest)]

    expected = everything(1)
    for threads in (2, 3, 7):
        assert everything(threads) == expected


# -- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [4, -2, 2**62, -(2**62)])
@pytest.mark.parametrize("backward", [False, True])
def test_labels_out_of_range(bad, backward):
    labels = np.array([0, 3, bad, 1])
    x, v = np.zeros((4, 4)), np.zeros(4)
    message = rf"expected labels in \[-1, 3\], got {bad} in row 2"
    with pytest.raises(ValueError, match=message):
        if backward:
            loss.cross_entropy_backward(v, x, labels, v, v, x.copy(), 0.0, 1)
        else:
            loss.cross_entropy(x, labels, v, v.copy(), v.copy(), 0.0, 1)


X, V, L = np.zeros((3, 4)), np.zeros(3), np.zeros(3, np.int64)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X.ravel(), L, V, V, V), ValueError, "expected x with 2 dimensions"),
        ((X.T, L, V, V, V), ValueError, "expected x to be C-contiguous"),
        ((X, L[:2], V, V, V), ValueError, "expected labels with 3 elements"),
        ((X, L.astype(np.int32), V, V, V), TypeError, "expected labels to be int64"),
        ((X, V, V, V, V), TypeError, "expected labels to be int64"),
        ((X, L, V[:2], V, V), ValueError, "expected loss with 3 elements"),
        ((X, L, V, V.astype("f4"), V), TypeError, "expected top to be float64"),
        ((X, L, V, V, np.zeros(6)[::2]), ValueError, "expected total to be C-contiguous"),
        ((X, None, V, V, V), TypeError, "expected labels to be an array, got None"),
    ],
)
def test_wrong_arrays(arguments, error, message):
    with pytest.raises(error, match=f"cross_entropy: {message}"):
        loss.cross_entropy(*arguments, 0.0, 1)


@pytest.mark.parametrize(
    ("gy", "gx", "message"),
    [
        (V[:2], X, "expected gy with 3 elements"),
        (V, X[:2], "expected gx with 12 elements"),
        (V, X.T, "expected gx to be C-contiguous"),
    ],
)
def test_wrong_gradient_arrays(gy, gx, message):
    with pytest.raises(ValueError, match=f"cross_entropy_backward: {message}"):
        loss.cross_entropy_backward(gy, X, L, V, V, gx, 0.0, 1)


def test_no_rows_and_no_classes():
    y, *_ = cross_entropy(np.zeros((0, 4)), np.zeros(0, np.int64))
    assert y.shape == (0,)
    y, top, total = cross_entropy(np.zeros((2, 0)), np.full(2, -1))
    assert y.tolist() == [0, 0]
    assert cross_entropy_backward(np.ones(2), np.zeros((2, 0)), np.full(2, -1), top, total).size == 0


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_wrong_elementwise_arrays(name):
    kernel, parameters = getattr(loss, name), ELEMENTWISE[name][0]
    with pytest.raises(ValueError, match=rf"{name}: expected t with shape \(3, 4\)"):
        kernel(X, np.zeros((4, 3)), X, *parameters, 1)
    with pytest.raises(TypeError, match=f"{name}: expected t to be float64"):
        kernel(X, X.astype("f4"), X, *parameters, 1)
    with pytest.raises(ValueError, match=f"{name}: expected x to be dense"):
        kernel(X[:, ::2], X[:, ::2], X[:, ::2], *parameters, 1)
