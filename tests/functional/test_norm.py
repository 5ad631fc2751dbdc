"""Normalisation: running statistics, accuracy, memory layout, errors. Values and gradients are in cases/norm.py."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
import nnx.functional as F
from nnx.autograd import Tensor
from nnx.testing import base_backend, gradcheck

DTYPES = (np.float32, np.float64)


def stats(channels, dtype=np.float64):
    return np.zeros(channels, dtype), np.ones(channels, dtype)


def standardised(x, axes, eps=1e-5):
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(var + eps)


# -- batch norm ------------------------------------------------------------------------------------


def test_batch_norm_uses_the_batch_in_training(rng):
    x = rng.standard_normal((6, 3, 4)) * 5 + 2
    y = F.batch_norm(x, None, None, training=True)
    np.testing.assert_allclose(y.data, standardised(x, (0, 2)), rtol=1e-12)


def test_running_statistics(rng):
    """The mean, and the unbiased variance, enter with the share `momentum`; in place, in the arrays given."""
    x = rng.standard_normal((6, 3, 4)) * 5 + 2
    mean, var = rng.standard_normal(3), rng.uniform(1, 2, 3)
    before = mean.copy(), var.copy()
    F.batch_norm(x, mean, var, training=True, momentum=0.3)
    np.testing.assert_allclose(mean, 0.7 * before[0] + 0.3 * x.mean((0, 2)), rtol=1e-12)
    np.testing.assert_allclose(var, 0.7 * before[1] + 0.3 * x.var((0, 2), ddof=1), rtol=1e-12)


def test_running_statistics_stay_in_evaluation(rng):
    mean, var = stats(3)
    y = F.batch_norm(rng.standard_normal((6, 3)), mean, var)
    assert mean.tolist() == [0.0] * 3
    assert var.tolist() == [1.0] * 3
    assert y.shape == (6, 3)


def test_one_running_array_alone(rng):
    x = rng.standard_normal((6, 3))
    mean, var = stats(3)
    F.batch_norm(x, mean, None, training=True, momentum=1.0)
    F.batch_norm(x, None, var, training=True, momentum=1.0)
    np.testing.assert_allclose(mean, x.mean(0))
    np.testing.assert_allclose(var, x.var(0, ddof=1))


def test_running_arrays_of_any_kind(rng):
    x = rng.standard_normal((6, 3)).astype(np.float32)
    wide = np.zeros(6)
    mean, var = Tensor(np.zeros(3)), wide[::2]
    F.batch_norm(x, mean, var, training=True, momentum=1.0)
    np.testing.assert_allclose(mean.data, x.mean(0), atol=1e-6)
    np.testing.assert_allclose(wide[::2], x.var(0, ddof=1), rtol=1e-6)
    assert wide[1::2].tolist() == [0.0] * 3
    assert F.batch_norm(x, mean, var).dtype == np.float32


def test_backward_after_the_running_arrays_moved(rng):
    """A tape of an evaluation step keeps the statistics of that step."""
    x = Tensor(rng.standard_normal((6, 3)), requires_grad=True)
    mean, var = stats(3)
    y = F.batch_norm(x, mean, var)
    mean += 5
    var *= 100
    y.sum().backward()
    np.testing.assert_allclose(x.grad, np.full((6, 3), 1 / np.sqrt(1 + 1e-5)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_large_mean_does_not_drown_the_variance(dtype, rng):
    noise = rng.standard_normal((500, 3, 7))
    shift = 1000.0 if dtype == np.float32 else 1e8
    x = (noise + shift).astype(dtype)
    exact = standardised(x.astype(np.longdouble), (0, 2)).astype(float)
    y = F.batch_norm(x, None, None, training=True).data
    # the mean may be some roundings off, each of which is 3e-5 (1000 in float32) or 1.5e-8 (1e8 in float64)
    np.testing.assert_allclose(y, exact, atol=1e-4 if dtype == np.float32 else 2e-7)
    rows = F.layer_norm(x.reshape(500, 21), 21).data
    exact = standardised(x.reshape(500, 21).astype(np.longdouble), 1).astype(float)
    np.testing.assert_allclose(rows, exact, atol=1e-4 if dtype == np.float32 else 2e-7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", ["cpu", "base"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1234.5678, -3e7])
def test_constant_features(dtype, backend, value):
    """With eps there is no 0 / 0: the result is the bias."""
    x = np.full((64, 5, 9), value, dtype)
    bias = np.arange(5).astype(dtype)
    context = base_backend() if backend == "base" else nnx.enable_grad()
    with context:
        y = F.batch_norm(x, None, None, None, bias, training=True).data
        z = F.layer_norm(x, 9).data
    scale = abs(value) / np.sqrt(1e-5) * np.finfo(np.float64).eps * 8  # of a mean summed in float64
    np.testing.assert_allclose(y, np.broadcast_to(bias[:, None], y.shape), atol=scale)
    np.testing.assert_allclose(z, 0, atol=scale)


def test_nan_stays_in_its_channel(rng):
    x = rng.standard_normal((6, 3))
    x[2, 1] = np.nan
    mean, var = stats(3)
    y = F.batch_norm(x, mean, var, training=True).data
    assert np.isnan(y).all(0).tolist() == [False, True, False]
    assert np.isnan(y).any(0).tolist() == [False, True, False]
    assert np.isnan(mean).tolist() == np.isnan(var).tolist() == [False, True, False]


def test_nan_stays_in_its_row(rng):
    x = rng.standard_normal((4, 6))
    x[2, 1] = np.nan
    assert np.isnan(F.layer_norm(x, 6).data).all(1).tolist() == [False, False, True, False]
    assert np.isnan(F.group_norm(x, 2).data).sum() == 3


@pytest.mark.parametrize("training", [True, False])
def test_empty_batch(training):
    mean, var = stats(3)
    x = Tensor(np.zeros((0, 3, 4)), requires_grad=True)
    w = Tensor(np.ones(3), requires_grad=True)
    y = F.batch_norm(x, mean, var, w, training=training)
    y.sum().backward()
    assert y.shape == x.grad.shape == (0, 3, 4)
    assert w.grad.tolist() == [0.0] * 3
    assert mean.tolist() == [0.0] * 3, "nothing came in, so nothing is learned"
    assert var.tolist() == [1.0] * 3


@pytest.mark.parametrize("shape", [(2, 0), (0, 0), (2, 0, 4), (2, 3, 0)])
def test_other_empty_shapes(shape):
    assert F.batch_norm(np.zeros(shape), None, None, training=True).shape == shape
    assert F.layer_norm(np.zeros(shape), shape[-1]).shape == shape


@pytest.mark.parametrize("shape", [(5, 3, 4), (2, 3, 4, 5), (2, 3, 2, 4, 5)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_channels_last_memory(shape, dtype, rng):
    """Both memory layouts give the same values; the result is channels-last, as convolution wants it."""
    x = rng.standard_normal(shape).astype(dtype)
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    w = rng.standard_normal(3).astype(dtype)
    results = []
    for a in (x, last):
        t = Tensor(a, requires_grad=True)
        y = F.batch_norm(t, None, None, w, training=True)
        y.backward(x)
        results.append((y.data, t.grad))
        assert y.data.strides[1] == y.data.itemsize
        assert t.grad.strides[1] == t.grad.itemsize
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_more_dimensions_than_the_kernels_know(rng):
    x = rng.standard_normal((2, 3, 2, 2, 2, 2))
    y = F.batch_norm(x, None, None, training=True)
    np.testing.assert_allclose(y.data, standardised(x, (0, 2, 3, 4, 5)), rtol=1e-12)


def test_a_wrong_type_or_shape_leaves_the_running_arrays(rng):
    x = rng.standard_normal((1, 3))
    mean, var = stats(3)
    with pytest.raises(ValueError, match="more than one value"):
        F.batch_norm(x, mean, var, training=True)
    with pytest.raises(ValueError, match="running_var of shape"):
        F.batch_norm(rng.standard_normal((4, 3)), mean, np.ones(4), training=True)
    assert mean.tolist() == [0.0] * 3


X = np.ones((4, 3))
ONES = np.ones(3)
READ_ONLY = np.ones(3)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((X[:1], None, None), {"training": True}, ValueError,
         r"expected more than one value per channel in training, got input of shape \(1, 3\)"),
        ((X[0], None, None), {}, ValueError, r"expected input with at least 2 dimensions, got shape \(3,\)"),
        ((X, None, ONES), {}, ValueError, "expected running_mean to be an array, got None"),
        ((X, ONES, None), {}, ValueError, "expected running_var to be an array, got None"),
        ((X, np.ones(4), ONES), {}, ValueError,
         r"expected running_mean of shape \(3,\) for input of shape \(4, 3\), got \(4,\)"),
        ((X, [1, 2, 3], ONES), {}, TypeError, "expected running_mean to be an array or None, got list"),
        ((X, np.ones(3, int), ONES), {}, TypeError, "expected running_mean of a float dtype, got int64"),
        ((X, READ_ONLY, None), {"training": True}, ValueError,
         "expected running_mean to be writeable in training, got a read-only array"),
        ((X, ONES, ONES, np.ones(2)), {}, ValueError,
         r"expected weight of shape \(3,\) for input of shape \(4, 3\), got \(2,\)"),
        ((X, ONES, ONES, None, np.ones((3, 1))), {}, ValueError, r"expected bias of shape \(3,\).*got \(3, 1\)"),
        ((X, ONES, ONES, Tensor(np.ones(3, np.float32))), {}, TypeError,
         "expected weight of dtype float64 like input, got float32"),
        ((Tensor(np.ones((4, 3), int)), ONES, ONES), {}, TypeError,
         "expected input of dtype float32 or float64, got a Tensor of dtype int64"),
        ((X, ONES, ONES), {"eps": 0}, ValueError, r"expected eps to be a number in \(0, inf\), got 0"),
        ((X, ONES, ONES), {"eps": "a"}, TypeError, "expected eps to be a number"),
        ((X, ONES, ONES), {"momentum": None}, TypeError, "expected momentum to be a number, got None"),
    ],
)  # fmt: skip
def test_batch_norm_errors(args, options, error, message):
    with pytest.raises(error, match=rf"^batch_norm: {message}"):
        F.batch_norm(*args, **options)
    assert ONES.tolist() == [1.0] * 3


def test_read_only_running_arrays_serve_evaluation():
    np.testing.assert_allclose(F.batch_norm(X, READ_ONLY, READ_ONLY).data, np.zeros((4, 3)))


# -- batch renorm ----------------------------------------------------------------------------------


def renorm_reference(x, mean, var, weight, bias, eps, rmax, dmax):
    """The paper's formula, in plain NumPy."""
    sigma_batch, sigma = np.sqrt(x.var(0) + eps), np.sqrt(var + eps)
    r = np.clip(sigma_batch / sigma, 1 / rmax, rmax)
    d = np.clip((x.mean(0) - mean) / sigma, -dmax, dmax)
    return ((x - x.mean(0)) / sigma_batch * r + d) * weight + bias


@pytest.mark.parametrize(("rmax", "dmax"), [(1.0, 0.0), (1.5, 0.2), (3.0, 5.0), (1e9, 1e9)])
def test_batch_renorm(rmax, dmax, rng):
    x = rng.standard_normal((7, 4)) * [0.1, 1, 2, 30] + [0, 3, -3, 1]
    mean, var = rng.standard_normal(4), rng.uniform(0.5, 2, 4)
    weight, bias = rng.standard_normal(4), rng.standard_normal(4)
    expected = renorm_reference(x, mean, var, weight, bias, 1e-3, rmax, dmax)
    y = F.batch_renorm(x, mean, var, weight, bias, True, eps=1e-3, rmax=rmax, dmax=dmax)
    np.testing.assert_allclose(y.data, expected, rtol=1e-12, atol=1e-12)


def test_batch_renorm_without_room_is_batch_norm(rng):
    x = rng.standard_normal((7, 3, 2)) * 3 + 1
    a, b = stats(3), stats(3)
    w = rng.standard_normal(3)
    y = F.batch_renorm(x, *a, w, None, True, rmax=1, dmax=0)
    np.testing.assert_allclose(y.data, F.batch_norm(x, *b, w, None, True).data, rtol=1e-12)
    np.testing.assert_array_equal(a, b)


def test_batch_renorm_with_all_room_is_evaluation(rng):
    x = rng.standard_normal((7, 3)) * 3 + 1
    mean, var = rng.standard_normal(3), rng.uniform(0.5, 2, 3)
    expected = F.batch_norm(x, mean, var).data
    y = F.batch_renorm(x, mean, var, training=True, rmax=1e9, dmax=1e9)
    np.testing.assert_allclose(y.data, expected, rtol=1e-10)


def test_batch_renorm_evaluates_like_batch_norm(rng):
    x, mean, var = rng.standard_normal((7, 3)), rng.standard_normal(3), rng.uniform(0.5, 2, 3)
    np.testing.assert_array_equal(F.batch_renorm(x, mean, var).data, F.batch_norm(x, mean, var).data)


@pytest.mark.parametrize(("rmax", "dmax"), [(1.2, 0.1), (3.0, 5.0)])
def test_gradient_of_batch_renorm_takes_r_and_d_as_constants(rmax, dmax, rng):
    x = rng.standard_normal((7, 3)) * [0.1, 1, 5] + 1
    mean, var = rng.standard_normal(3), rng.uniform(0.5, 2, 3)
    w, b, gy = rng.standard_normal(3), rng.standard_normal(3), rng.standard_normal((7, 3))
    sigma_batch, sigma = np.sqrt(x.var(0) + 1e-5), np.sqrt(var + 1e-5)
    r = np.clip(sigma_batch / sigma, 1 / rmax, rmax)
    d = np.clip((x.mean(0) - mean) / sigma, -dmax, dmax)
    tensors = [Tensor(a, requires_grad=True) for a in (x, w, b)]
    y = F.batch_renorm(tensors[0], mean.copy(), var.copy(), *tensors[1:], True, rmax=rmax, dmax=dmax)
    y.backward(gy)

    def with_constants(x, w, b):
        return (F.batch_norm(x, None, None, None, None, True) * r + d) * w + b

    others = [Tensor(a, requires_grad=True) for a in (x, w, b)]
    with_constants(*others).backward(gy)
    gradcheck(with_constants, (x, w, b))
    for t, o in zip(tensors, others, strict=True):
        np.testing.assert_allclose(t.grad, o.grad, rtol=1e-9, atol=1e-12)


def test_batch_renorm_errors():
    with pytest.raises(ValueError, match=r"batch_renorm: expected rmax to be a number in \[1, inf\), got 0.5"):
        F.batch_renorm(X, ONES, ONES, rmax=0.5)
    with pytest.raises(ValueError, match=r"batch_renorm: expected dmax to be a number in \[0, inf\), got -1"):
        F.batch_renorm(X, ONES, ONES, dmax=-1)
    with pytest.raises(ValueError, match="batch_renorm: expected running_mean to be an array, got None"):
        F.batch_renorm(X, None, ONES, training=True)
    with pytest.raises(ValueError, match="batch_renorm: expected running_var to be an array, got None"):
        F.batch_renorm(X, ONES, None)
    with pytest.raises(ValueError, match="batch_renorm: expected more than one value per channel"):
        F.batch_renorm(X[:1], ONES.copy(), ONES.copy(), training=True)


# -- layer, group and instance norm ----------------------------------------------------------------


def test_layer_norm_shapes(rng):
    x = rng.standard_normal((2, 3, 4))
    np.testing.assert_allclose(F.layer_norm(x, 4).data, standardised(x, 2), rtol=1e-12)
    np.testing.assert_allclose(F.layer_norm(x, (4,)).data, standardised(x, 2), rtol=1e-12)
    np.testing.assert_allclose(F.layer_norm(x, [3, 4]).data, standardised(x, (1, 2)), rtol=1e-12)
    np.testing.assert_allclose(F.layer_norm(x, x.shape).data, standardised(x, (0, 1, 2)), rtol=1e-12)


def test_group_norm_groups(rng):
    x = rng.standard_normal((2, 6, 5))
    grouped = standardised(x.reshape(2, 3, 2, 5), (2, 3)).reshape(2, 6, 5)
    np.testing.assert_allclose(F.group_norm(x, 3).data, grouped, rtol=1e-12)
    np.testing.assert_allclose(F.group_norm(x, 6).data, F.instance_norm(x).data, rtol=1e-12)
    np.testing.assert_allclose(F.group_norm(x, 1).data, F.layer_norm(x, (6, 5)).data, rtol=1e-12)


def test_instance_norm_moves_averages_over_the_samples(rng):
    x = rng.standard_normal((4, 3, 5))
    mean, var = stats(3)
    F.instance_norm(x, mean, var, momentum=0.3)
    np.testing.assert_allclose(mean, 0.3 * x.mean((0, 2)), rtol=1e-12)
    np.testing.assert_allclose(var, 0.7 + 0.3 * x.var(2, ddof=1).mean(0), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.layer_norm(X, 4), ValueError,
         r"layer_norm: expected input of shape \(\.\.\., 4\), got shape \(4, 3\)"),
        (lambda: F.layer_norm(X, (2, 4, 3)), ValueError,
         r"layer_norm: expected input of shape \(\.\.\., 2, 4, 3\), got shape \(4, 3\)"),
        (lambda: F.layer_norm(X, ()), ValueError,
         r"layer_norm: expected normalized_shape with at least one dimension, got \(\)"),
        (lambda: F.layer_norm(X, 3.0), TypeError, "layer_norm: expected normalized_shape to be an integer"),
        (lambda: F.layer_norm(X, 3, np.ones(4)), ValueError, r"layer_norm: expected weight of shape \(3,\)"),
        (lambda: F.layer_norm(X, 3, eps=-1), ValueError, "layer_norm: expected eps to be a number in"),
        (lambda: F.group_norm(X, 2), ValueError,
         r"group_norm: expected a number of channels \(dimension 1\) that num_groups=2 divides, got shape \(4, 3\)"),
        (lambda: F.group_norm(X, 0), ValueError, "group_norm: expected num_groups to be an integer >= 1, got 0"),
        (lambda: F.group_norm(X[0], 1), ValueError, "group_norm: expected input with at least 2 dimensions"),
        (lambda: F.group_norm(X, 3, np.ones(2)), ValueError, r"group_norm: expected weight of shape \(3,\)"),
        (lambda: F.instance_norm(X), ValueError,
         r"instance_norm: expected input with at least 3 dimensions, got shape \(4, 3\)"),
        (lambda: F.instance_norm(X[..., None]), ValueError,
         r"instance_norm: expected more than one position per channel in training, got shape \(4, 3, 1\)"),
        (lambda: F.instance_norm(X[..., None], use_input_stats=False), ValueError,
         "instance_norm: expected running_mean to be an array, got None"),
        (lambda: F.local_response_norm(X, 5), ValueError,
         r"local_response_norm: expected input with at least 3 dimensions, got shape \(4, 3\)"),
        (lambda: F.local_response_norm(X[..., None], 0), ValueError,
         "local_response_norm: expected size to be an integer >= 1, got 0"),
        (lambda: F.normalize(X, out=X), ValueError, "normalize: expected out to be None"),
        (lambda: F.normalize(X, dim=2), IndexError, "expected dim to be in"),
        (lambda: F.normalize(X, p=0), ValueError, "expected p to be a number in"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


# -- local response norm and normalize -------------------------------------------------------------


def test_local_response_norm_by_hand():
    x = np.arange(1.0, 6.0).reshape(1, 5, 1)
    y = F.local_response_norm(x, 3, alpha=3.0, beta=1.0, k=2.0).data.ravel()
    # x / (2 + sum of squares of itself and both neighbours)
    np.testing.assert_allclose(y, [1 / 7, 2 / 16, 3 / 31, 4 / 52, 5 / 43])
    y = F.local_response_norm(x, 2, alpha=2.0, beta=1.0, k=2.0).data.ravel()
    np.testing.assert_allclose(y, [1 / 3, 2 / 7, 3 / 15, 4 / 27, 5 / 43])  # itself and the one below


def test_local_response_norm_with_a_window_too_wide_for_the_kernel(rng):
    x = rng.standard_normal((2, 90, 3))
    y = F.local_response_norm(x, 71, alpha=0.5)
    with base_backend():
        np.testing.assert_array_equal(y.data, F.local_response_norm(x, 71, alpha=0.5).data)


def test_normalize_of_zero_is_zero():
    x = Tensor(np.zeros((2, 3)), requires_grad=True)
    y = F.normalize(x)
    y.sum().backward()
    assert not y.data.any()
    assert np.isfinite(x.grad).all()
