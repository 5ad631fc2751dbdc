"""Gradient clipping, and parameters as one vector."""

from __future__ import annotations

import math

import numpy as np
import pytest

import nnx
from nnx.nn.utils import (
    clip_grad_norm_,
    clip_grad_value_,
    parameters_to_vector,
    vector_to_parameters,
)


def parameters(*grads, dtype=np.float64):
    """Parameters with these gradients."""
    params = []
    for g in grads:
        g = None if g is None else np.asarray(g, dtype)
        params.append(nnx.Parameter(np.zeros(2 if g is None else g.shape, dtype)))
        params[-1].grad = g
    return params


def test_norm_is_taken_over_all_gradients_together():
    params = parameters([3.0, 0.0], None, [[0.0, 4.0]], np.zeros((0, 2)))
    arrays = [p.grad for p in params]
    norm = clip_grad_norm_(params, 1.0)
    assert norm.item() == 5.0 and norm.shape == ()
    np.testing.assert_allclose(arrays[0], [0.6, 0], rtol=1e-6)
    np.testing.assert_allclose(arrays[2], [[0, 0.8]], rtol=1e-6)
    assert all(p.grad is a for p, a in zip(params, arrays, strict=True))  # in place


def test_small_gradients_stay_as_they_are():
    (p,) = parameters([0.3, 0.4])
    assert clip_grad_norm_(p, 1.0).item() == pytest.approx(0.5)
    np.testing.assert_array_equal(p.grad, [0.3, 0.4])
    assert clip_grad_norm_([p], math.inf).item() == pytest.approx(0.5)
    np.testing.assert_array_equal(p.grad, [0.3, 0.4])


@pytest.mark.parametrize(
    ("norm_type", "expected"), [(1, 7.0), (2, 5.0), (3, 91 ** (1 / 3)), (math.inf, 4.0), ("inf", 4.0)]
)
def test_orders(norm_type, expected):
    params = parameters([-3.0], [4.0])
    if norm_type == "inf":
        with pytest.raises(TypeError, match="clip_grad_norm_: expected norm_type to be a number"):
            clip_grad_norm_(params, 1.0, norm_type)
        return
    assert clip_grad_norm_(params, 1.0, norm_type).item() == pytest.approx(expected)
    assert params[0].grad[0] == pytest.approx(-3 / expected, rel=1e-5)


def test_nothing_to_clip():
    assert clip_grad_norm_([], 1.0).item() == 0
    assert clip_grad_norm_(parameters(None, None), 1.0).item() == 0
    assert clip_grad_norm_(parameters(np.zeros(0)), 1.0).item() == 0
    clip_grad_value_([], 1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_error_if_nonfinite_leaves_the_gradients(bad):
    params = parameters([1.0, bad], [2.0])
    with pytest.raises(RuntimeError, match="clip_grad_norm_: expected gradients with a finite norm"):
        clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    np.testing.assert_array_equal(params[1].grad, 2)
    norm = clip_grad_norm_(params, 1.0)
    np.testing.assert_equal(norm.item(), bad)
    # nothing is hidden: NaN spreads, infinity makes the others zero
    np.testing.assert_equal(params[1].grad, [math.nan if math.isnan(bad) else 0.0])


def test_float32_sums_do_not_overflow():
    params = parameters([3e30], [4e30], dtype=np.float32)
    assert clip_grad_norm_(params, 1.0).item() == pytest.approx(5e30, rel=1e-6)
    np.testing.assert_allclose([p.grad[0] for p in params], [0.6, 0.8], rtol=1e-6)


def test_both_types_and_any_layout(rng):
    a, b = rng.standard_normal((2, 6, 8))
    p, q = nnx.Parameter(np.zeros((6, 4))), nnx.Parameter(np.zeros((8, 6), np.float32))
    p.grad, q.grad = a[:, ::2], b.astype(np.float32).T
    expected = math.sqrt((a[:, ::2] ** 2).sum() + (b.astype(np.float32).astype(float) ** 2).sum())
    other = a[:, 1::2].copy()
    norm = clip_grad_norm_([p, q], 0.5).item()
    assert norm == pytest.approx(expected, rel=1e-12)
    assert clip_grad_norm_([p, q], 10).item() == pytest.approx(0.5, rel=1e-5)
    np.testing.assert_array_equal(a[:, 1::2], other)


def test_a_shared_read_only_or_scalar_gradient_is_replaced(rng):
    g = rng.standard_normal(10)
    original = g.copy()
    p, q, r, s = parameters(g, g, g, 1.0)
    p.grad, q.grad, r.grad = g, g[:], np.broadcast_to(g, 10)
    s.grad = np.float64(2.0)
    norm = clip_grad_norm_([p, q, r, s], 0.1).item()
    for x in (p, q, r):
        np.testing.assert_allclose(x.grad, original * 0.1 / norm, rtol=1e-4)
    assert isinstance(s.grad, np.ndarray) and s.grad == pytest.approx(0.2 / norm, rel=1e-4)
    # one parameter that is named twice is clipped once
    before = p.grad.copy()
    clip_grad_norm_([p, p], np.linalg.norm(before) / 2)
    np.testing.assert_allclose(p.grad, before / 2, rtol=1e-4)


def test_clip_value():
    params = parameters([-3.0, 0.5, math.nan], None, [[9.0]])
    array = params[0].grad
    clip_grad_value_(iter(params), 1)
    np.testing.assert_array_equal(array, [-1, 0.5, math.nan])
    np.testing.assert_array_equal(params[2].grad, [[1.0]])


def test_norm_bits_do_not_depend_on_the_number_of_threads(rng):
    grads = [rng.standard_normal(s).astype(np.float32) for s in (100_001, 7, 50_000)]
    norms = []
    for threads in (1, 2, 3):
        nnx.set_num_threads(threads)
        norms.append(clip_grad_norm_(parameters(*grads, dtype=np.float32), 1e9).item())
    assert len(set(norms)) == 1


def test_vectors_of_parameters(rng):
    a, b = nnx.Parameter(rng.standard_normal((2, 3))), nnx.Parameter(np.zeros((4, 4))[:, ::2])
    arrays = [a.data, b.data]
    vector = parameters_to_vector(iter([a, b]))
    np.testing.assert_array_equal(vector.data, [*a.data.ravel(), *[0] * 8])
    (vector * vector).sum().backward()
    np.testing.assert_allclose(a.grad, 2 * a.data)
    new = np.arange(14.0)
    vector_to_parameters(nnx.tensor(new), [a, b])
    assert a.data is arrays[0] and b.data is arrays[1]
    np.testing.assert_array_equal(parameters_to_vector([a, b]).data, new)
    vector_to_parameters(a.data.ravel()[::-1], [a])  # a view of its own target
    np.testing.assert_array_equal(a.data.ravel(), new[:6][::-1])


def test_errors(rng):
    (p,) = parameters([1.0, 2.0])
    with pytest.raises(ValueError, match="clip_grad_norm_: expected max_norm to be a number in"):
        clip_grad_norm_([p], -1)
    with pytest.raises(ValueError, match="clip_grad_norm_: expected norm_type to be a number in"):
        clip_grad_norm_([p], 1, 0)
    with pytest.raises(ValueError, match="clip_grad_norm_: expected foreach to be left at its def"):
        clip_grad_norm_([p], 1, foreach=True)
    with pytest.raises(ValueError, match="clip_grad_value_: expected foreach to be left"):
        clip_grad_value_([p], 1, foreach=True)
    with pytest.raises(ValueError, match="clip_grad_value_: expected clip_value to be a number"):
        clip_grad_value_([p], math.nan)
    with pytest.raises(TypeError, match="clip_grad_norm_: expected parameters to be a Parameter or"):
        clip_grad_norm_(np.ones(3), 1)
    with pytest.raises(TypeError, match="clip_grad_value_: expected parameters to be Parameters, go"):
        clip_grad_value_([np.ones(3)], 1)
    with pytest.raises(ValueError, match="parameters_to_vector: expected at least one parameter"):
        parameters_to_vector([])
    with pytest.raises(ValueError, match=r"vector_to_parameters: expected vec of shape \(2,\), got"):
        vector_to_parameters(np.ones(3), [p])
    p.grad = nnx.tensor([1.0, 2.0])
    with pytest.raises(TypeError, match="clip_grad_norm_: expected .grad to be an array or None, go"):
        clip_grad_norm_([p], 1)
    q = nnx.Parameter(np.zeros(1))
    q.data.flags.writeable = False
    with pytest.raises(ValueError, match="expected the array of parameter 1 to be writeable, got a"):
        vector_to_parameters(np.ones(3), [p, q])
    np.testing.assert_array_equal(p.data, 0)
