"""The activation kernels: accuracy at every level, and bits that depend on the numbers alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnx._ext import activation

DTYPES = (np.float32, np.float64)
INF, NAN = math.inf, math.nan

# kernels without their last argument, the number of threads: name, parameters
FORWARD = {
    "relu": (),
    "leaky_relu": (0.1,),
    "hardtanh": (-0.5, 2.0),
    "elu": (1.3, 1.1, 0.9),
    "sigmoid": (),
    "tanh": (),
    "softplus": (0.7, 5.0),
    "silu": (),
    "mish": (),
    "gelu": (),
    "gelu_tanh": (),
}
ROWS = ("softmax", "log_softmax")


def forward(name, x, threads=1):
    y = np.empty_like(x)
    arrays = [a[:, :, None] for a in (x, y)] if name in ROWS and x.ndim == 2 else (x, y)
    getattr(activation, name)(*arrays, *FORWARD.get(name, ()), threads)
    return y


def backward(name, gy, z, threads=1):
    gx = np.empty_like(z)
    arrays = [a[:, :, None] for a in (gy, z, gx)] if name in ROWS and z.ndim == 2 else (gy, z, gx)
    getattr(activation, f"{name}_backward")(*arrays, *FORWARD.get(name, ()), threads)
    return gx


# -- accuracy --------------------------------------------------------------------------------------


def _normal_cdf(mp, x):
    return mp.erfc(-x / mp.sqrt(2)) / 2


def _mish(mp, x):
    return x * mp.tanh(mp.log1p(mp.exp(x)))


def _gelu_tanh(mp, x):
    return x / (1 + mp.exp(-2 * mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3)))


# name: (parameters, the function of mpmath, largest error in ulp for |x| <= 4, and beyond as long
# as exp(x) is a normal number). Behind are the measured largest errors, rounded up.
#
# gelu_tanh takes the exponential of a cubic, whose rounding costs as many ulp as its argument is
# large: an error of 1e-5 of a result that is below 1e-30.
ACCURACY = {
    "sigmoid": ((), lambda mp, x: 1 / (1 + mp.exp(-x)), 2.5, 2.5),
    "tanh": ((), lambda mp, x: mp.tanh(x), 3, 3),
    "softplus": ((1.0, INF), lambda mp, x: mp.log1p(mp.exp(x)), 2.5, 2.5),
    "elu": ((1.0, 1.0, 1.0), lambda mp, x: x if x > 0 else mp.expm1(x), 1.5, 1.5),
    "silu": ((), lambda mp, x: x / (1 + mp.exp(-x)), 3, 3.5),
    "mish": ((), _mish, 3, 3.5),
    "gelu": ((), lambda mp, x: x * _normal_cdf(mp, x), 8, 9),
    "gelu_tanh": ((), _gelu_tanh, 24, 1500),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACCURACY)
def test_error_in_ulp(name, dtype, level):
    mp = pytest.importorskip("mpmath")
    parameters, function, bound_near, bound_far = ACCURACY[name]
    rng = np.random.default_rng(0)
    far = 87 if dtype == np.float32 else 708
    if "gelu" in name:
        far = 12 if dtype == np.float32 else 36
    tiny = np.copysign(10.0 ** rng.uniform(-30, 0, 200), rng.standard_normal(200))
    draws = (rng.uniform(-4, 4, 600), rng.uniform(-far, far, 600), tiny, [0.0, 0.5, -1.0, far])
    x = np.concatenate(draws).astype(dtype)
    y = np.empty_like(x)
    getattr(activation, name)(x, y, *parameters, 1)
    with mp.workprec(160):
        exact = [function(mp, mp.mpf(float(v))) for v in x]
        error = np.array([float(abs(mp.mpf(float(v)) - e)) for v, e in zip(y, exact, strict=True)])
    ulp = error / np.spacing(np.array([float(abs(e)) for e in exact]).astype(dtype))
    assert ulp[np.abs(x) <= 4].max() <= bound_near
    assert ulp.max() <= bound_far
    assert ulp.max() > 0, "a comparison of the kernel with itself"


def test_exp_is_exact_to_an_ulp_over_its_whole_range(level):
    """Seen through the slope of ELU, which is the exponential: every float32 exponent, denormals too."""
    x = -np.concatenate([np.linspace(0, 104, 200_001), np.geomspace(1e-30, 1, 5000)])
    x = x.astype(np.float32)
    y = np.empty_like(x)
    activation.elu_backward(np.ones_like(x), x, y, 1.0, 1.0, 1.0, 1)
    exact = np.exp(x.astype(np.float64))
    ulp = np.abs(y - exact) / np.spacing(exact.astype(np.float32)).astype(np.float64)
    assert 0 < ulp.max() <= 1.1


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("n", [1, 2, 10, 16, 17, 256, 257, 1000])
def test_rows_in_float32(name, n, level):
    x = (np.random.default_rng(n).standard_normal((7, n)) * 10).astype(np.float32)
    z = x.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    total = np.exp(z).sum(axis=1, keepdims=True)
    # the difference from the largest score is rounded once, the sum of exponentials a few times
    size = np.abs(z) + np.log(total) + 4
    if name == "softmax":
        exact = np.exp(z) / total
        assert (np.abs(forward(name, x) - exact) <= (4 + size) * 2.0**-23 * exact).all()
    else:
        assert (np.abs(forward(name, x) - (z - np.log(total))) <= (2 + size) * 2.0**-23).all()


# -- special numbers -------------------------------------------------------------------------------

SPECIAL = {  # results at -inf, -0.0, 0.0 and inf
    "relu": (0, 0, 0, INF),
    "leaky_relu": (-INF, 0, 0, INF),
    "hardtanh": (-0.5, 0, 0, 2),
    "elu": (-1.3 * 1.1, 0, 0, INF),
    "sigmoid": (0, 0.5, 0.5, 1),
    "tanh": (-1, 0, 0, 1),
    "softplus": (0, math.log(2) / 0.7, math.log(2) / 0.7, INF),
    "silu": (0, 0, 0, INF),
    "mish": (0, 0, 0, INF),
    "gelu": (0, 0, 0, INF),
    "gelu_tanh": (0, 0, 0, INF),
}
SLOPES = {
    "relu": (0, 0, 0, 1),  # by the result, not the input
    "leaky_relu": (0.1, 0.1, 0.1, 1),
    "hardtanh": (0, 1, 1, 0),
    "elu": (0, 1.3 * 1.1 * 0.9, 1.3 * 1.1 * 0.9, 1.1),
    "softplus": (0, 0.5, 0.5, 1),
    "silu": (0, 0.5, 0.5, 1),
    "mish": (0, 0.6, 0.6, 1),
    "gelu": (0, 0.5, 0.5, 1),
    "gelu_tanh": (0, 0.5, 0.5, 1),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORWARD)
def test_limits_and_nan(name, dtype, level):
    x = np.array([-INF, -0.0, 0.0, INF, NAN], dtype)
    y = forward(name, x)
    np.testing.assert_allclose(y[:4], SPECIAL[name], rtol=1e-6)
    assert np.isnan(y[4])
    if name in SLOPES:
        gx = backward(name, np.full_like(x, 2), x)
        np.testing.assert_allclose(gx[:4], 2 * np.array(SLOPES[name]), rtol=1e-6)
        # the gradient of a piecewise linear function passes a NaN input by: the result has it already
        assert np.isnan(gx[4]) or name in ("relu", "leaky_relu", "hardtanh")


@pytest.mark.parametrize("dtype", DTYPES)
def test_denormal_results(dtype, level):
    x = np.array([-100, -88] if dtype == np.float32 else [-740, -709], dtype)
    tiny = np.finfo(dtype).smallest_subnormal
    np.testing.assert_allclose(forward("sigmoid", x), np.exp(x), rtol=0, atol=tiny)
    np.testing.assert_allclose(forward("tanh", x[:1] * 0 + tiny), tiny, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_with_nan_and_infinity(dtype, level):
    x = np.zeros((5, 20), dtype)
    x[0, 3], x[1, 3], x[2, 3], x[3] = NAN, INF, -INF, -INF
    y = forward("softmax", x)
    assert np.isnan(y[[0, 1, 3]]).all()
    np.testing.assert_allclose(y[2], np.where(np.arange(20) == 3, 0, 1 / 19), rtol=1e-6)
    np.testing.assert_allclose(y[4], 0.05, rtol=1e-6)


def test_scores_of_any_size_do_not_overflow(level):
    x = np.array([[1e4, 1e4 - 1, -1e4], [3e38, -3e38, 0]], np.float32)
    expected = [[1 / (1 + math.exp(-1)), 1 / (1 + math.e), 0], [1, 0, 0]]
    np.testing.assert_allclose(forward("softmax", x), expected, rtol=1e-6)


# -- bits ------------------------------------------------------------------------------------------


def _wild(rng, n, dtype):
    x = (rng.standard_normal(n) * 10.0 ** rng.uniform(-6, 2, n)).astype(dtype)
    x[::97] = rng.choice(np.array([NAN, INF, -INF, 0.0, -0.0], dtype), len(x[::97]))
    return x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORWARD)
def test_an_element_has_the_same_bits_wherever_it_lies(name, dtype, level):
    """Vector body, rest and alignment: each element alone gives what it gives among others."""
    rng = np.random.default_rng(0)
    x, gy = _wild(rng, 300, dtype), _wild(rng, 300, dtype)
    whole, slopes = forward(name, x), backward(name, gy, x)
    for i in range(0, 300, 7):
        for n in (1, 5, 64, 65, 130):
            part = slice(i, min(i + n, 300))
            assert forward(name, x[part]).tobytes() == whole[part].tobytes()
            assert backward(name, gy[part], x[part]).tobytes() == slopes[part].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("n", [3, 37, 256, 257, 400])
def test_a_row_has_the_same_bits_wherever_it_lies(name, n, dtype, level):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, n)).astype(dtype)
    gy = rng.standard_normal((40, n)).astype(dtype)
    whole = forward(name, x)
    slopes = backward(name, gy, whole)
    for r in range(40):
        assert forward(name, x[r : r + 1]).tobytes() == whole[r : r + 1].tobytes()
        assert backward(name, gy[r : r + 1], whole[r : r + 1]).tobytes() == slopes[r].tobytes()


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("n", [1, 2, 3, 5, 15, 16, 20])
def test_any_number_of_rows(name, n):
    """Also where a part of a tile is as long as a whole one: 4 rows of 5, say."""
    x, gy = np.random.default_rng(0).standard_normal((2, 40, n))
    whole = forward(name, x)
    slopes = backward(name, gy, whole)
    for rows in range(1, 40):
        assert forward(name, x[:rows]).tobytes() == whole[:rows].tobytes()
        assert backward(name, gy[:rows], whole[:rows]).tobytes() == slopes[:rows].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize(
    ("outer", "n", "inner"),
    [(3, 5, 7), (2, 21, 64), (2, 64, 300), (2, 3, 1000), (1, 65, 260), (1, 256, 3), (40, 2, 1), (1, 1, 50)],
)
def test_slices_have_the_bits_of_rows(name, outer, n, inner, dtype, level):
    """However the slices of an array (outer, n, inner) lie, alone or side by side."""
    rng = np.random.default_rng(0)
    x, gy = rng.standard_normal((2, outer, n, inner)).astype(dtype)

    def as_rows(a):
        return np.ascontiguousarray(np.moveaxis(a, 1, -1)).reshape(-1, n)

    y = forward(name, x)
    assert as_rows(y).tobytes() == forward(name, as_rows(x)).tobytes()
    gx = backward(name, gy, y)
    assert as_rows(gx).tobytes() == backward(name, as_rows(gy), as_rows(y)).tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*FORWARD, *ROWS])
def test_same_bits_for_any_number_of_threads(name, dtype):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((331, 99)).astype(dtype)
    gy = rng.standard_normal((331, 99)).astype(dtype)
    y, gx = forward(name, x), backward(name, gy, x)
    for threads in (2, 3, 7):
        assert forward(name, x, threads).tobytes() == y.tobytes()
        assert backward(name, gy, x, threads).tobytes() == gx.tobytes()


@pytest.mark.parametrize("name", FORWARD)
def test_output_may_be_the_input(name, level):
    x = np.random.default_rng(0).standard_normal(200)
    expected, gradient = forward(name, x), backward(name, x, x)
    y, g = x.copy(), x.copy()
    getattr(activation, name)(y, y, *FORWARD[name], 1)
    getattr(activation, f"{name}_backward")(g, x, g, *FORWARD[name], 1)
    assert y.tobytes() == expected.tobytes()
    assert g.tobytes() == gradient.tobytes()


# -- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arrays", "error", "message"),
    [
        ("softmax", [(3, 4, 1), (4, 3, 1)], ValueError, "softmax: expected y to have 3 in dimension 0"),
        ("softmax", [(3, 4, 2), (3, 4, 1)], ValueError, "softmax: expected y to have 2 in dimension 2"),
        ("softmax", [(3, 4), (3, 4, 1)], ValueError, "softmax: expected x with 3 dimensions"),
        ("softmax", [(3, 4, 1), (3, 4)], ValueError, "softmax: expected y with 3 dimensions"),
        ("softmax", [(3, 257, 2)] * 2, ValueError, r"expected x of shape \(outer, n, 1\) for n > 256"),
        ("softmax_backward", [(3, 257, 2)] * 3, ValueError, r"expected y of shape \(outer, n, 1\)"),
        (
            "softmax_backward",
            [(3, 4, 1), (3, 4, 1), (3, 3, 1)],
            ValueError,
            "softmax_backward: expected gx to have 4 in dimension 1",
        ),
        (
            "log_softmax_backward",
            [(2, 6, 1), (3, 4, 1), (3, 4, 1)],
            ValueError,
            "log_softmax_backward: expected gy to have 3 in dimension 0",
        ),
        ("silu_backward", [(3, 4), (4, 3), (4, 3)], ValueError, "expected gy with shape"),
        ("silu_backward", [(4, 3), (4, 3), (12,)], ValueError, "expected gx with shape"),
    ],
)
def test_wrong_shapes(name, arrays, error, message):
    with pytest.raises(error, match=message):
        getattr(activation, name)(*[np.zeros(shape) for shape in arrays], 1)


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("softmax", lambda x, y: (x.T[..., None], y[..., None]), ValueError, "expected x to be C-contiguous"),
        ("softmax", lambda x, y: (x[..., None], y[:, ::-1, None]), ValueError, "expected y to be C-contiguous"),
        ("softmax", lambda x, y: (x[..., None], y[..., None].astype("f4")), TypeError, "expected y to be float64"),
        ("softmax", lambda x, y: (None, y), TypeError, "expected x to be an array, got None"),
        ("gelu", lambda x, y: (x[:, ::2], y), ValueError, "expected x to be dense in memory"),
        ("gelu", lambda x, y: (x.astype(int), y), TypeError, "expected x to be float32 or float64"),
    ],
)
def test_wrong_arrays(name, change, error, message):
    with pytest.raises(error, match=f"{name}: {message}"):
        getattr(activation, name)(*change(np.zeros((4, 4)), np.zeros((4, 4))), 1)


def test_read_only_output():
    y = np.zeros((3, 4))
    y.flags.writeable = False
    with pytest.raises(ValueError, match="gelu: expected y to be writeable"):
        activation.gelu(np.zeros((3, 4)), y, 1)
    with pytest.raises(ValueError, match="softmax: expected y to be writeable"):
        activation.softmax(np.zeros((3, 4, 1)), y[..., None], 1)


X = np.zeros((3, 4))
KEEP = np.zeros((3, 4), bool)


@pytest.mark.parametrize(
    ("x", "keep", "y", "error", "message"),
    [
        (X, KEEP.T, X, ValueError, "dropout: expected keep to have the shape and memory order of x"),
        (X, KEEP[:, :3], X, ValueError, "expected keep to have the shape and memory order of x"),
        (X, KEEP.ravel(), X, ValueError, "expected keep to have the shape and memory order of x"),
        (X, np.zeros((4, 3), bool).T, X, ValueError, "shape and memory order of x"),
        (X, np.broadcast_to(KEEP[:1], (3, 4)), X, ValueError, "shape and memory order of x"),
        (X, X, X, TypeError, "dropout: expected keep to be bool"),
        (X, None, X, TypeError, "expected keep to be an array, got None"),
        (X, KEEP, X.T, ValueError, r"expected y with shape \(3, 4\)"),
        (X[:, ::2], KEEP[:, ::2], X[:, ::2], ValueError, "expected x to be dense in memory"),
    ],
)
def test_wrong_dropout_arrays(x, keep, y, error, message):
    with pytest.raises(error, match=message):
        activation.dropout(x, keep, y, 2.0, 1)


def test_dropout_in_any_order_of_the_axes():
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).transpose(2, 0, 1)
    keep = (np.random.default_rng(1).random((2, 3, 4)) > 0.5).transpose(2, 0, 1)
    y = np.empty_like(x)
    activation.dropout(x, keep, y, 3.0, 1)
    np.testing.assert_array_equal(y, np.where(keep, 3 * x, 0))
