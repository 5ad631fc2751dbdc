"""Activations: values worked out by hand, limits, arguments and errors. Gradients: tests/test_cases.py."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest

import nnx
import nnx.functional as F
from nnx.backends import Backend
from nnx.backends.cpu import CPUBackend

INF, NAN = math.inf, math.nan
E = math.e


def leaf(values, dtype=np.float64):
    return nnx.Tensor(np.array(values, dtype), requires_grad=True)


def slope(function, x, **kwargs):
    t = leaf(x)
    function(t, **kwargs).backward(np.ones_like(t.data))
    return t.grad


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "x", "expected"),
    [
        (F.relu, [-1, 0, 2], [0, 0, 2]),
        (F.leaky_relu, [-1, 0, 2], [-0.01, 0, 2]),
        (lambda x: F.leaky_relu(x, 0.1), [-1, 2], [-0.1, 2]),
        (F.elu, [-1, 0, 2], [1 / E - 1, 0, 2]),
        (lambda x: F.elu(x, 3.0), [-1], [3 * (1 / E - 1)]),
        (lambda x: F.celu(x, 2.0), [-2, 2], [2 * (1 / E - 1), 2]),
        (F.selu, [-1, 1], [1.0507009873554805 * 1.6732632423543772 * (1 / E - 1), 1.05070098735548]),
        (F.gelu, [-1, 0, 1], [-0.15865525393145707, 0, 0.8413447460685429]),
        (lambda x: F.gelu(x, "tanh"), [1], [0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * 1.044715))]),
        (F.silu, [-1, 0, 1], [-1 / (1 + E), 0, 1 / (1 + 1 / E)]),
        (F.mish, [0, 1], [0, math.tanh(math.log(1 + E))]),
        (F.sigmoid, [0, math.log(3)], [0.5, 0.75]),
        (F.tanh, [0, math.log(2)], [0, 0.6]),
        (F.softplus, [0, math.log(2), 30], [math.log(2), math.log(3), 30]),
        (lambda x: F.softplus(x, beta=2), [0], [math.log(2) / 2]),
        (lambda x: F.softplus(x, threshold=1), [1.5], [1.5]),
        (F.logsigmoid, [0, -1000, 1000], [-math.log(2), -1000, 0]),
        (F.softsign, [-3, 0, 1], [-0.75, 0, 0.5]),
        (F.hardtanh, [-3, 0.5, 3], [-1, 0.5, 1]),
        (lambda x: F.hardtanh(x, 0, 2), [-3, 0.5, 3], [0, 0.5, 2]),
        (F.relu6, [-1, 3, 7], [0, 3, 6]),
        (F.hardsigmoid, [-4, 0, 1.5, 4], [0, 0.5, 0.75, 1]),
        (F.hardswish, [-4, -1, 1, 4], [0, -1 / 3, 2 / 3, 4]),
        (lambda x: F.softmax(x, 0), [0, math.log(3)], [0.25, 0.75]),
        (lambda x: F.softmin(x, 0), [0, math.log(3)], [0.75, 0.25]),
        (lambda x: F.log_softmax(x, -1), [0, math.log(3)], [-math.log(4), math.log(0.75)]),
        (lambda x: F.glu(x, 0), [3, 4, 0, math.log(3)], [1.5, 3]),
        (lambda x: F.maxout(x, 2), [1, 3, -4, -2, 5, 5], [3, -2, 5]),
        (lambda x: F.prelu(x, 0.25), [-4, 4], [-1, 4]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values(function, x, expected, dtype):
    y = function(np.array(x, dtype))
    assert isinstance(y, nnx.Tensor) and y.dtype == dtype
    np.testing.assert_allclose(y.data, expected, rtol=1e-6 if dtype == np.float32 else 1e-12)


def test_slope_at_the_kink():
    """At 0 a choice is made, the same as PyTorch's."""
    assert slope(F.relu, [0.0]) == 0
    assert slope(F.leaky_relu, [0.0]) == 0.01
    assert slope(F.elu, [0.0], alpha=2) == 2
    assert slope(F.hardtanh, [-1.0, 1.0]).tolist() == [0, 0]
    assert slope(F.relu6, [0.0, 6.0]).tolist() == [0, 0]


def test_saturation():
    """The slopes of the sigmoid vanish for large input, those of ReLU do not."""
    np.testing.assert_allclose(
        slope(F.sigmoid, [-10.0, 0.0, 10.0]), [4.5395807735951673e-05, 0.25, 4.5395807735951673e-05]
    )
    np.testing.assert_allclose(slope(F.sigmoid, [-3.0]), 0.045176659730912, rtol=1e-12)
    assert slope(F.tanh, [0.0]) == 1
    assert slope(F.relu, [-10.0, 10.0]).tolist() == [0, 1]


def test_tanh_is_a_stretched_sigmoid():
    x = np.linspace(-5, 5, 1001)
    np.testing.assert_allclose(F.tanh(x).data, 2 * F.sigmoid(2 * x).data - 1, atol=5e-16)


def test_softmax_of_the_course_example():
    p = F.softmax([[3.2, 5.1, -1.7]], dim=1).data
    np.testing.assert_allclose(p, [[0.12998, 0.86905, 0.00097]], atol=5e-6)


def test_softmax_takes_scores_of_any_size():
    x = np.array([[1e4, 1e4, -1e4], [-1e30, 0, 1e30]], np.float32)
    np.testing.assert_allclose(F.softmax(x, 1).data, [[0.5, 0.5, 0], [0, 0, 1]])
    np.testing.assert_allclose(F.log_softmax(x, 1).data[0, :2], [-math.log(2)] * 2, rtol=1e-6)


def test_sigmoid_takes_numbers_of_any_size():
    np.testing.assert_array_equal(F.sigmoid([-1e4, 1e4, -INF, INF]).data, [0, 1, 0, 1])


def test_selu_keeps_mean_and_variance(rng):
    y = F.selu(rng.standard_normal(1_000_000)).data
    assert abs(y.mean()) < 0.005 and abs(y.var() - 1) < 0.01


def test_maxout_contains_relu_and_leaky_relu(rng):
    x = rng.standard_normal(50)
    np.testing.assert_array_equal(F.maxout(np.stack([x, 0 * x], -1), 2).data[:, 0], F.relu(x).data)
    leaky = F.maxout(np.stack([x, 0.01 * x], -1), 2).data[:, 0]
    np.testing.assert_array_equal(leaky, F.leaky_relu(x).data)


def test_maxout_gives_the_gradient_to_the_first_of_equals_and_to_nan():
    x = leaf([2.0, 2.0, 1.0, 1.0, NAN, 3.0])
    F.maxout(x, 3).backward(np.array([10.0, 20.0]))
    np.testing.assert_array_equal(x.grad, [10, 0, 0, 0, 20, 0])


# -- limits ----------------------------------------------------------------------------------------

LIMITS = {  # at -inf and inf
    "relu": (0, INF),
    "leaky_relu": (-INF, INF),
    "elu": (-1, INF),
    "selu": (-1.7580993408473766, INF),
    "celu": (-1, INF),
    "gelu": (0, INF),
    "silu": (0, INF),
    "mish": (0, INF),
    "sigmoid": (0, 1),
    "tanh": (-1, 1),
    "softplus": (0, INF),
    "logsigmoid": (-INF, 0),
    "softsign": (-1, 1),
    "hardtanh": (-1, 1),
    "relu6": (0, 6),
    "hardsigmoid": (0, 1),
    "hardswish": (0, INF),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("base", [False, True], ids=["cpu", "base"])
@pytest.mark.parametrize("name", LIMITS)
def test_limits(name, base, dtype):
    x = nnx.Tensor(np.array([-INF, INF, NAN, -0.0, 0.0], dtype), requires_grad=True)
    with nnx.testing.base_backend() if base else nnx.enable_grad():
        y = getattr(F, name)(x)
        y.backward(np.ones_like(x.data))
    np.testing.assert_allclose(y.data[:2], LIMITS[name], rtol=1e-6)
    assert np.isnan(y.data[2]) and np.isfinite(y.data[3:]).all()
    low, high = LIMITS[name]
    if not math.isinf(low):
        assert x.grad[0] == 0
    if not math.isinf(high):
        assert x.grad[1] == 0
    assert np.isfinite(x.grad[[0, 1, 3, 4]]).all()


# -- arguments -------------------------------------------------------------------------------------

ELEMENTWISE = sorted(LIMITS)


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("make", [list, tuple, np.array, lambda v: np.array(v, np.uint8)])
def test_takes_arrays_of_any_kind(name, make):
    y = getattr(F, name)(make([1, 2, 3]))
    assert isinstance(y, nnx.Tensor) and y.dtype == np.float32


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_input_is_never_changed(name, rng):
    x = rng.standard_normal(100)
    x.flags.writeable = False
    function = getattr(F, name)
    kwargs = {"inplace": True} if "inplace" in inspect.signature(function).parameters else {}
    y = function(x, **kwargs)
    assert not np.shares_memory(y.data, x)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_keeps_the_memory_layout(name, rng):
    """Channels-last arrays stay channels-last, so that the next convolution need not convert."""
    x = rng.standard_normal((2, 4, 5, 3), dtype=np.float32).transpose(0, 3, 1, 2)
    assert getattr(F, name)(x).data.strides == x.strides


def test_softmax_over_channels_keeps_the_memory_layout(rng):
    x = rng.standard_normal((2, 4, 5, 3)).transpose(0, 3, 1, 2)
    assert F.softmax(x, 1).data.strides == x.strides


def test_softmax_converts_first():
    assert F.softmax(np.array([1.0, 2.0], np.float32), 0, dtype=np.float64).dtype == np.float64
    assert F.log_softmax(nnx.tensor([1, 2]), 0, dtype=np.float32).dtype == np.float32
    x = nnx.tensor([1.0, 2.0], requires_grad=True)
    F.softmax(x, 0, dtype=np.float64).backward(np.array([1.0, 0.0]))
    assert x.grad.dtype == np.float32


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (0, 4)])
def test_empty_and_single_numbers(shape):
    for name in ELEMENTWISE:
        assert getattr(F, name)(np.zeros(shape)).shape == shape
    if shape:
        assert F.softmax(np.zeros(shape), -1).shape == F.log_softmax(np.zeros(shape), 0).shape == shape


SCORES = np.zeros((2, 3))


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (lambda: F.softmax(SCORES), ValueError,
         r"softmax: expected dim to be a dimension, got None. For scores of shape \(N, C\) pass dim=1"),
        (lambda: F.log_softmax(SCORES), ValueError, "log_softmax: expected dim to be a dimension"),
        (lambda: F.softmin(SCORES), ValueError, "softmin: expected dim to be a dimension, got None"),
        (lambda: F.softmax(SCORES, 2), IndexError, r"softmax: expected dim to be in \[-2, 1\]"),
        (lambda: F.softmax(SCORES, 1.0), TypeError, "softmax: expected dim to be an integer"),
        (lambda: F.softmax(3.0, 0), ValueError, "softmax: expected input with at least one dimension"),
        (lambda: F.softmax(SCORES, 1, dtype=int), TypeError, "softmax: expected dtype to be float32"),
        (lambda: F.leaky_relu(SCORES, "a"), TypeError, "leaky_relu: expected negative_slope to be a number"),
        (lambda: F.leaky_relu(SCORES, NAN), ValueError, "leaky_relu: expected negative_slope"),
        (lambda: F.elu(SCORES, None), TypeError, "elu: expected alpha to be a number"),
        (lambda: F.celu(SCORES, 0), ValueError, r"celu: expected alpha to be a number in \(0, inf\), got 0"),
        (lambda: F.celu(SCORES, -1), ValueError, "celu: expected alpha to be a number"),
        (lambda: F.gelu(SCORES, "fast"), ValueError,
         "gelu: expected approximate to be one of 'none', 'tanh', got 'fast'"),
        (lambda: F.softplus(SCORES, 0), ValueError, "softplus: expected beta other than 0, got 0"),
        (lambda: F.softplus(SCORES, 1, "a"), TypeError, "softplus: expected threshold to be a number"),
        (lambda: F.hardtanh(SCORES, 1, 1), ValueError, "hardtanh: expected min_val < max_val, got 1 and 1"),
        (lambda: F.hardtanh(SCORES, max_val="a"), TypeError, "hardtanh: expected max_val to be a number"),
        (lambda: F.prelu(SCORES, [1.0, 2.0]), ValueError,
         r"prelu: expected weight with 1 element or one for each of the 3 channels of an input of shape \(2, 3\), "
         r"got shape \(2,\)"),
        (lambda: F.prelu(SCORES, np.ones((3, 1))), ValueError, "prelu: expected weight with 1 element"),
        (lambda: F.prelu(SCORES, nnx.tensor([1.0])), TypeError,
         "prelu: expected input of dtype float32 like weight, got float64"),
        (lambda: F.glu(SCORES), ValueError,
         r"glu: expected input with an even size in dimension 1, got shape \(2, 3\)"),
        (lambda: F.glu(SCORES, 5), IndexError, "glu: expected dim to be in"),
        (lambda: F.maxout(SCORES, 2), ValueError,
         "maxout: expected input whose size in dimension 1 is a multiple of 2"),
        (lambda: F.maxout(SCORES, 0), ValueError, "maxout: expected num_pieces to be an integer >= 1, got 0"),
        (lambda: F.maxout(SCORES, 1.5), TypeError, "maxout: expected num_pieces to be an integer"),
        (lambda: F.maxout(SCORES, 1, 2), IndexError, "maxout: expected dim to be in"),
    ],
)  # fmt: skip
def test_errors(action, error, message):
    with pytest.raises(error, match=message):
        action()


@pytest.mark.parametrize("name", sorted(set(ELEMENTWISE) - {"relu", "sigmoid", "tanh"}))
def test_integer_tensors_are_refused(name):
    """An array of integers is cast; a Tensor of integers, which was made on purpose, is not."""
    message = f"{name}: expected input of dtype float32 or float64, got a Tensor of dtype int64"
    with pytest.raises(TypeError, match=message):
        getattr(F, name)(nnx.Tensor(np.array([1, 2])))


# -- types without a kernel ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.longdouble])
def test_other_float_types_run_in_numpy(dtype, rng):
    x = rng.standard_normal((4, 5)).astype(dtype)
    cpu, base = CPUBackend(), Backend()
    for name in ("relu", "sigmoid", "tanh", "silu", "mish"):
        y = getattr(cpu, name)(x)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, getattr(base, name)(x))
    np.testing.assert_array_equal(cpu.softmax(x, 1), base.softmax(x, 1))
