"""Initial values: bounds, distributions, structure, and that they are written in place.

Bands are at least five standard errors wide, so that a right distribution stays inside with any seed.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

import nnx
from nnx import nn
from nnx.autograd import Parameter, Tensor
from nnx.nn import init

DTYPES = (np.float32, np.float64)
SHAPE = (60, 50, 3, 2)  # fan_in 300, fan_out 360, 18,000 elements


def filled(function, *args, shape=SHAPE, dtype=np.float64, **options):
    array = np.full(shape, np.nan, dtype)
    result = function(array, *args, **options)
    assert result is array
    assert array.dtype == dtype
    assert np.isfinite(array).all()
    return array


def looks_uniform(array, low, high):
    span = high - low
    ulp = np.finfo(array.dtype).eps * max(abs(low), abs(high))
    assert low - ulp <= array.min() < low + 0.002 * span
    assert high - 0.002 * span < array.max() <= high + ulp
    assert stats.kstest(array.ravel(), stats.uniform(low, span).cdf).pvalue > 1e-6


def looks_normal(array, mean, std):
    assert stats.kstest(array.ravel(), stats.norm(mean, std).cdf).pvalue > 1e-6
    assert abs(array.std() / std - 1) < 0.05


# -- plain distributions ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_uniform(dtype):
    looks_uniform(filled(init.uniform_, dtype=dtype), 0, 1)
    looks_uniform(filled(init.uniform_, -3, 5, dtype=dtype), -3, 5)
    assert (filled(init.uniform_, 2, 2, dtype=dtype) == 2).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_normal(dtype):
    looks_normal(filled(init.normal_, dtype=dtype), 0, 1)
    looks_normal(filled(init.normal_, 5, 0.1, dtype=dtype), 5, 0.1)
    assert (filled(init.normal_, 5, 0, dtype=dtype) == 5).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("mean", "std", "a", "b"), [(0, 1, -2, 2), (1, 0.5, 0.9, 1.2), (0, 1, 0.5, 4), (0, 0.02, -2, 2), (0, 1, -5, -3)]
)
def test_truncated_normal(mean, std, a, b, dtype):
    array = filled(init.trunc_normal_, mean, std, a, b, dtype=dtype)
    assert array.min() >= np.float32(a)
    assert array.max() <= np.float32(b)
    expected = stats.truncnorm((a - mean) / std, (b - mean) / std, mean, std)
    assert stats.kstest(array.ravel(), expected.cdf).pvalue > 1e-6


def test_constants():
    assert (filled(init.constant_, 0.25) == 0.25).all()
    assert (filled(init.ones_) == 1).all()
    assert (filled(init.zeros_) == 0).all()


# -- scaled to the layer ---------------------------------------------------------------------------

GAIN = math.sqrt(2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gain", [1.0, 2.5])
def test_xavier(gain, dtype):
    bound = gain * math.sqrt(6 / (300 + 360))
    looks_uniform(filled(init.xavier_uniform_, gain, dtype=dtype), -bound, bound)
    looks_normal(filled(init.xavier_normal_, gain, dtype=dtype), 0, gain * math.sqrt(2 / (300 + 360)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("options", "std"),
    [
        ({}, GAIN / math.sqrt(300)),
        ({"mode": "fan_out"}, GAIN / math.sqrt(360)),
        ({"a": math.sqrt(5)}, 1 / math.sqrt(3 * 300)),
        ({"nonlinearity": "relu", "a": 7}, GAIN / math.sqrt(300)),
        ({"nonlinearity": "linear"}, 1 / math.sqrt(300)),
        ({"nonlinearity": "tanh", "mode": "fan_out"}, 5 / 3 / math.sqrt(360)),
    ],
)
def test_kaiming(options, std, dtype):
    bound = math.sqrt(3) * std
    looks_uniform(filled(init.kaiming_uniform_, dtype=dtype, **options), -bound, bound)
    looks_normal(filled(init.kaiming_normal_, dtype=dtype, **options), 0, std)


@pytest.mark.parametrize(
    ("name", "param", "gain"),
    [
        ("linear", None, 1),
        ("conv2d", None, 1),
        ("conv_transpose3d", None, 1),
        ("sigmoid", None, 1),
        ("tanh", None, 5 / 3),
        ("relu", None, GAIN),
        ("leaky_relu", None, math.sqrt(2 / 1.0001)),
        ("leaky_relu", 0.2, math.sqrt(2 / 1.04)),
        ("leaky_relu", 0, GAIN),
        ("selu", None, 0.75),
    ],
)
def test_gains(name, param, gain):
    assert init.calculate_gain(name, param) == pytest.approx(gain)


# -- structure -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 5), (4, 9), (9, 4), (3, 2, 2, 2), (1, 6), (6, 1)])
def test_orthogonal(shape, dtype):
    array = filled(init.orthogonal_, 3.0, shape=shape, dtype=dtype).reshape(shape[0], -1)
    product = array @ array.T if array.shape[0] <= array.shape[1] else array.T @ array
    np.testing.assert_allclose(product, 9 * np.eye(min(array.shape)), atol=1e-5 if dtype == np.float32 else 1e-12)


def test_orthogonal_matrices_are_uniformly_distributed():
    """Without the choice of signs, QR would give diagonal elements of one sign alone."""
    rng = np.random.default_rng(0)
    signs = [np.sign(filled(init.orthogonal_, shape=(3, 3), generator=rng)[0, 0]) for _ in range(200)]
    assert abs(np.sum(signs)) < 5 * math.sqrt(200)


def test_eye():
    np.testing.assert_array_equal(filled(init.eye_, shape=(3, 5)), np.eye(3, 5))


@pytest.mark.parametrize("shape", [(4, 4, 3), (4, 4, 3, 5), (2, 4, 3, 3), (6, 2, 3, 4, 5)])
def test_dirac_passes_the_input_through(shape, rng):
    weight = filled(init.dirac_, shape=shape)
    assert weight.sum() == min(shape[:2])
    x = rng.standard_normal((2, shape[1], *(7,) * (len(shape) - 2)))
    y = {3: nnx.functional.conv1d, 4: nnx.functional.conv2d, 5: nnx.functional.conv3d}[len(shape)](
        np.pad(x, [(0, 0), (0, 0), *((k // 2, k - 1 - k // 2) for k in shape[2:])]), weight
    )
    n = min(shape[:2])
    np.testing.assert_allclose(y.data[:, :n], x[:, :n], atol=1e-12)
    assert not y.data[:, n:].any()


def test_dirac_with_groups():
    weight = filled(init.dirac_, 2, shape=(6, 2, 3))
    expected = np.zeros((6, 2, 3))
    for out, into in [(0, 0), (1, 1), (3, 0), (4, 1)]:
        expected[out, into, 1] = 1
    np.testing.assert_array_equal(weight, expected)


def test_sparse():
    array = filled(init.sparse_, 0.3, std=2.0, shape=(100, 50))
    assert (array == 0).sum(0).tolist() == [30] * 50
    looks_normal(array[array != 0], 0, 2.0)
    assert len({tuple(np.flatnonzero(column == 0)) for column in array.T}) > 1


# -- what is filled, and by which stream -----------------------------------------------------------

DRAWS = [
    init.uniform_,
    init.normal_,
    init.trunc_normal_,
    init.xavier_uniform_,
    init.xavier_normal_,
    init.kaiming_uniform_,
    init.kaiming_normal_,
    init.orthogonal_,
    lambda tensor, generator=None: init.sparse_(tensor, 0.2, generator=generator),
]


@pytest.mark.parametrize("draw", DRAWS)
def test_generator_and_seed(draw):
    def drawn(generator=None):
        return draw(np.zeros((4, 3)), generator=generator).tolist()

    assert drawn(np.random.default_rng(3)) == drawn(np.random.default_rng(3))
    assert drawn(np.random.default_rng(3)) != drawn(np.random.default_rng(4))
    nnx.manual_seed(7)
    first, second = drawn(), drawn()
    nnx.manual_seed(7)
    assert (drawn(), drawn()) == (first, second)
    assert first != second
    state = np.random.get_state()[1].tolist()
    drawn()
    assert np.random.get_state()[1].tolist() == state


@pytest.mark.parametrize("draw", [*DRAWS, init.ones_, init.zeros_, init.eye_])
def test_targets(draw):
    p = Parameter(np.full((4, 3), np.nan, np.float32))
    data = p.data
    assert draw(p) is p
    assert p.data is data
    assert np.isfinite(data).all()
    t = Tensor(np.full((4, 3), np.nan))
    assert draw(t) is t
    assert np.isfinite(t.data).all()
    wide = np.full((4, 6), np.nan)
    draw(wide[:, ::2])
    assert np.isfinite(wide[:, ::2]).all()
    assert np.isnan(wide[:, 1::2]).all()
    assert draw(np.zeros((0, 3))).shape == (0, 3)


# -- the layers' own -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [(nn.Linear(300, 60), 300), (nn.Linear(300, 60, dtype=np.float64), 300), (nn.Bilinear(25, 30, 20), 25)],
)
def test_layers_start_as_pytorchs(layer, fan_in):
    bound = 1 / math.sqrt(fan_in)
    looks_uniform(layer.weight.data, -bound, bound)
    assert np.abs(layer.bias.data).max() <= bound * (1 + 1e-6)
    assert layer.bias.data.std() > bound / 4


A = np.zeros((3, 2))
READ_ONLY = np.zeros((3, 2))
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: init.ones_([1.0]), TypeError,
         "ones_: expected tensor to be a Parameter, a Tensor or an array, got list"),
        (lambda: init.ones_(np.ones(2, int)), TypeError, "ones_: expected tensor of a float dtype, got int64"),
        (lambda: init.zeros_(READ_ONLY), ValueError, "zeros_: expected tensor to be writeable, got a read-only array"),
        (lambda: init.uniform_(A, 1, 0), ValueError, r"uniform_: expected b to be a number in \[1, inf\), got 0"),
        (lambda: init.uniform_(A, np.nan), ValueError, "uniform_: expected a to be a number, got nan"),
        (lambda: init.normal_(A, 0, -1), ValueError, r"normal_: expected std to be a number in \[0, inf\), got -1"),
        (lambda: init.normal_(A, generator=3), TypeError, "generator: expected a numpy.random.Generator, got int"),
        (lambda: init.trunc_normal_(A, 0, 0), ValueError, r"trunc_normal_: expected std to be a number in \(0, inf\)"),
        (lambda: init.trunc_normal_(A, a=3), ValueError,
         r"trunc_normal_: expected b to be a number in \[3, inf\), got 2"),
        (lambda: init.constant_(A, "x"), TypeError, "constant_: expected val to be a number, got 'x'"),
        (lambda: init.eye_(np.zeros(3)), ValueError, r"eye_: expected tensor with 2 dimensions, got shape \(3,\)"),
        (lambda: init.dirac_(A), ValueError, r"dirac_: expected tensor with 3, 4 or 5 dimensions, got shape \(3, 2\)"),
        (lambda: init.dirac_(np.zeros((3, 2, 1)), 2), ValueError,
         r"dirac_: expected dimension 0 to be divisible by groups=2, got shape \(3, 2, 1\)"),
        (lambda: init.xavier_uniform_(np.zeros(3)), ValueError,
         r"xavier_uniform_: expected tensor with at least 2 dimensions \(out, in, \.\.\.\), got shape \(3,\)"),
        (lambda: init.xavier_normal_(A, -1), ValueError, "xavier_normal_: expected gain to be a number in"),
        (lambda: init.kaiming_uniform_(A, mode="fan"), ValueError,
         "kaiming_uniform_: expected mode to be one of 'fan_in', 'fan_out', got 'fan'"),
        (lambda: init.kaiming_normal_(A, nonlinearity="cubic"), ValueError,
         "calculate_gain: expected nonlinearity to be one of .*'leaky_relu', 'selu', got 'cubic'"),
        (lambda: init.orthogonal_(np.zeros(3)), ValueError, "orthogonal_: expected tensor with at least 2 dimensions"),
        (lambda: init.sparse_(np.zeros(3), 0.1), ValueError, r"sparse_: expected tensor with 2 dimensions"),
        (lambda: init.sparse_(A, 1.5), ValueError, r"sparse_: expected sparsity to be a number in \[0, 1\], got 1.5"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error, match=rf"^{message}"):
        call()
    assert not A.any()
