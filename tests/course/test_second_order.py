"""Rows of nnx.course.second_order."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx.course import second_order as topic
from nnx.course.gradient_descent import saddle


def test_F073_newton_solves_a_quadratic_in_one_step():
    way = topic.newton((1.0, 1.0), topic.bowl, steps=1)
    np.testing.assert_allclose(way[-1], [0, 0], atol=1e-12)
    one = topic.newton((-3.0, 7.0), topic.bowl, steps=1)
    np.testing.assert_allclose(one[-1], [0, 0], atol=1e-11)  # from anywhere


def test_F073_newton_in_the_bent_valley_and_at_a_saddle():
    errors = np.abs(topic.newton((-1.2, 1.0), topic.rosenbrock, steps=7) - 1).max(axis=1)
    assert errors[7] < 1e-9 and errors[6] < errors[5] ** 1.5
    np.testing.assert_allclose(topic.newton((0.5, 0.1), saddle, steps=8)[-1], [0, 0], atol=1e-6)
    damped = topic.newton((0.5, 0.1), saddle, steps=60, damping=4.0)[-1]
    np.testing.assert_allclose(damped, [0, np.sqrt(2)], atol=1e-5)


@pytest.mark.parametrize("method", ["BFGS", "L-BFGS-B"])
def test_F074_the_same_minimum_as_scipy_alone(method):
    """The same problem written in plain NumPy for SciPy."""
    import scipy.optimize

    count, decay = 60, 1e-2
    digits = nnx.data.digits("float64")
    x, y = digits.x_train[:count].reshape(count, -1), digits.y_train[:count]

    def loss(v):
        w, b = v[:640].reshape(10, 64), v[640:]
        s = x @ w.T + b
        s = s - s.max(axis=1, keepdims=True)
        p = np.exp(s) / np.exp(s).sum(axis=1, keepdims=True)
        d = p.copy()
        d[np.arange(count), y] -= 1
        value = -np.log(p[np.arange(count), y]).mean() + decay / 2 * (v @ v)
        return value, np.concatenate([(d.T @ x / count).ravel(), d.mean(axis=0)]) + decay * v

    theirs = scipy.optimize.minimize(loss, np.zeros(650), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    model, closure = topic.logistic_problem(count, decay)
    ours = nnx.optim.minimize(model, closure, method=method, options={"maxiter": 200})
    assert ours.fun == pytest.approx(theirs.fun, rel=1e-6)  # both stop by a tolerance of about 1e-6
    assert closure().item() == pytest.approx(ours.fun, rel=1e-12)


def test_F074_lbfgs_of_the_library_finds_it_too():
    model, closure = topic.logistic_problem(60)
    optimizer = nnx.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")
    optimizer.step(closure)
    expected, _ = topic.minimise("L-BFGS-B", 60, 200)
    assert closure().item() == pytest.approx(expected, rel=1e-6)


def test_F074_second_order_needs_fewer_gradients():
    (loss, seen), (slow, steps) = topic.minimise("L-BFGS-B", 60, 40), topic.minimise("gradient descent", 60, 80)
    assert len(seen) < len(steps) and loss < slow


def test_F074_noise_must_be_off():
    assert topic.noise_message().startswith("minimize: expected a model without noise, got Dropout '2'")
    model, closure = topic.logistic_problem(20)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="minimize: expected closure to give one loss for the same parameters"):
        nnx.optim.minimize(model, lambda: closure() + float(rng.standard_normal()))
