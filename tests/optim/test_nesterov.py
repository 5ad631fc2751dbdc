"""The look-ahead form of Nesterov's momentum."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx.optim import SGD, Nesterov


def bowl(p):
    def closure():
        p.grad = None
        loss = 5 * p[0] ** 2 + p[1] ** 2 / 2
        loss.backward()
        return loss

    return closure


def start(dtype=np.float64):
    return nnx.Parameter(np.array([1.0, 1.0], dtype))


def test_it_is_the_formula():
    x, v = np.array([1.0, 1.0]), np.zeros(2)
    p = start()
    optimizer = Nesterov([p], lr=0.01, momentum=0.9)
    for _ in range(10):
        v = 0.9 * v - 0.01 * np.array([10.0, 1.0]) * (x + 0.9 * v)
        x = x + v
        optimizer.step(bowl(p))
        np.testing.assert_allclose(p.data, x, rtol=1e-13)


def test_both_forms_walk_the_same_way():
    p, q = start(), start()
    ahead, rewritten = Nesterov([p], lr=0.01, momentum=0.9), SGD([q], lr=0.01, momentum=0.9, nesterov=True)
    for _ in range(20):
        ahead.step(bowl(p))
        rewritten.step(bowl(q))
        looked_at = p.data - 0.01 * 0.9 * ahead.state[p]["momentum_buffer"]
        np.testing.assert_allclose(q.data, looked_at, rtol=1e-12)
        assert np.abs(q.data - p.data).max() > 1e-6


def test_the_loss_is_that_of_the_point_looked_at():
    p = start()
    optimizer = Nesterov([p], lr=0.01)
    assert optimizer.step(bowl(p)).item() == 5.5
    ahead = nnx.Parameter(p.data - 0.009 * optimizer.state[p]["momentum_buffer"])
    expected = bowl(ahead)().item()
    assert optimizer.step(bowl(p)).item() == pytest.approx(expected, rel=1e-14)


def test_a_failed_step_changes_nothing():
    p = start()
    optimizer = Nesterov([p], lr=0.01)
    optimizer.step(bowl(p))
    before, buffer = p.data.copy(), optimizer.state[p]["momentum_buffer"].copy()
    seen = []

    def failing():
        seen.append(p.data.copy())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        optimizer.step(failing)
    assert (seen[0] != before).all()
    np.testing.assert_array_equal(p.data, before)
    np.testing.assert_array_equal(optimizer.state[p]["momentum_buffer"], buffer)


def test_two_parameters_on_one_array_are_put_back():
    array = np.array([1.0, 1.0])
    p, q = nnx.Parameter(array), nnx.Parameter(array)
    optimizer = Nesterov([p, q], lr=0.01)

    def closure():
        p.grad, q.grad = np.ones(2), np.ones(2)
        return 0.0

    optimizer.step(closure)
    before = array.copy()
    with pytest.raises(ZeroDivisionError):
        optimizer.step(lambda: 1 / 0)
    np.testing.assert_array_equal(array, before)


def test_its_state_goes_to_sgd_and_back():
    p = start()
    optimizer = Nesterov([p], lr=0.01)
    optimizer.step(bowl(p))
    other = Nesterov([nnx.Parameter(p.data.copy())])
    other.load_state_dict(optimizer.state_dict())
    (q,) = other.param_groups[0]["params"]
    for _ in range(3):
        optimizer.step(bowl(p))
        other.step(bowl(q))
    np.testing.assert_array_equal(p.data, q.data)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: Nesterov([start()]).step(), TypeError, "Nesterov.step: expected a closure, got None"),
        (lambda: Nesterov([start()], lr=-1), ValueError, "Nesterov: expected lr"),
        (lambda: Nesterov([start()], momentum=1.5), ValueError, r"Nesterov: expected momentum .* in \[0, 1\]"),
        (lambda: Nesterov([{"params": [start()], "weight_decay": 0.1}]), ValueError,
         "Nesterov: expected weight_decay to be left at its default, got 0.1. Use SGD"),
    ],
)  # fmt: skip
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_a_read_only_parameter_is_refused_before_anything_moves():
    p, q = start(), start()
    optimizer = Nesterov([p, q])

    def closure():
        p.grad, q.grad = np.ones(2), np.ones(2)
        return 0.0

    optimizer.step(closure)
    before = p.data.copy()
    q.data.flags.writeable = False
    with pytest.raises(ValueError, match="the array of parameter 1 to be writeable"):
        optimizer.step(closure)
    np.testing.assert_array_equal(p.data, before)
