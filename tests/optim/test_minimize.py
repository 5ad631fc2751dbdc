"""`minimize`: SciPy's methods over parameters."""

from __future__ import annotations

import contextlib
import sys

import numpy as np
import pytest

import nnx
from nnx.optim import minimize

GRADIENT_METHODS = ["L-BFGS-B", "BFGS", "CG", "Newton-CG", "TNC", "SLSQP", "trust-constr"]


def problem(rng, dtype=np.float64):
    """Least squares with its solution: two parameters of different shape, one with strides."""
    x = rng.standard_normal((30, 4))
    y = x @ np.array([1.0, -2.0, 0.5, 3.0]) + 0.7
    memory = np.zeros((1, 8), dtype)
    w, b = nnx.Parameter(memory[:, ::2]), nnx.Parameter(np.zeros((), dtype))

    def closure():
        error = (nnx.tensor(x.astype(dtype)) * w).sum(dim=1) + b - y.astype(dtype)
        loss = (error * error).mean()
        loss.backward()
        return loss

    return w, b, closure


@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_methods_with_gradient(method, rng):
    w, b, closure = problem(rng)
    arrays = [w.data, b.data]
    result = minimize([w, b], closure, method=method)
    np.testing.assert_allclose(w.data, [[1, -2, 0.5, 3]], atol=1e-3)
    np.testing.assert_allclose(b.data, 0.7, atol=1e-3)
    assert result.fun < 1e-6
    np.testing.assert_array_equal(result.x, [*w.data[0], b.data])
    assert w.data is arrays[0] and b.data is arrays[1]
    assert w.grad is None and b.grad is None


@pytest.mark.parametrize("method", ["Nelder-Mead", "Powell", "COBYLA"])
def test_methods_without_gradient_take_a_closure_without_backward(method):
    p = nnx.Parameter(np.array([2.0, -1.0]))
    minimize([p], lambda: ((p - 1) * (p - 1)).sum(), method=method)
    np.testing.assert_allclose(p.data, 1, atol=1e-3)


def test_equals_scipy_on_the_same_function():
    import scipy.optimize

    p = nnx.Parameter(np.array([-1.2, 1.0]))

    def closure():
        loss = (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2
        loss.backward()
        return loss

    start = p.data.copy()
    ours = minimize([p], closure)
    theirs = scipy.optimize.minimize(scipy.optimize.rosen, start, jac=scipy.optimize.rosen_der, method="L-BFGS-B")
    assert ours.nit == theirs.nit and ours.success
    np.testing.assert_allclose(ours.x, theirs.x, atol=1e-6)


def test_float32_parameters_and_frozen_ones(rng):
    w, b, closure = problem(rng, np.float32)
    b.data[...] = 0.7
    b.requires_grad = False
    result = minimize(iter([w, b, w]), closure, options={"maxiter": 200})
    assert result.x.shape == (4,) and result.x.dtype == np.float64
    assert w.data.dtype == np.float32
    np.testing.assert_allclose(w.data, [[1, -2, 0.5, 3]], atol=1e-2)
    assert b.data == np.float32(0.7)


def test_a_model_is_asked_for_its_parameters(rng):
    class Model:
        def parameters(self):
            return iter(parameters)

    w, b, closure = problem(rng)
    parameters = [w, b]
    assert minimize(Model(), closure, method="BFGS").fun < 1e-8
    p = nnx.Parameter(np.array(3.0))

    def square():
        loss = p * p
        loss.backward()
        return loss

    assert minimize(p, square).fun < 1e-8


def test_options_reach_scipy(rng):
    w, b, closure = problem(rng)
    seen = []
    result = minimize(
        [w, b],
        closure,
        tol=1e-12,
        bounds=[(None, 1.0)] * 5,
        callback=lambda x: seen.append(x.copy()),
        options={"maxiter": 3},
    )
    assert result.nit == len(seen) == 3
    assert result.x.max() <= 1
    quadratic = nnx.Parameter(np.array([1.0, 1.0]))

    def closure():
        loss = (nnx.tensor(np.array([5.0, 0.5])) * quadratic * quadratic).sum()
        loss.backward()
        return loss

    minimize([quadratic], closure, method="trust-ncg", hessp=lambda x, v: np.array([10.0, 1.0]) * v)
    np.testing.assert_allclose(quadratic.data, 0, atol=1e-6)
    quadratic.data[...] = 1
    minimize(
        [quadratic],
        closure,
        method="SLSQP",
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1},
    )
    np.testing.assert_allclose(quadratic.data, [1 / 11, 10 / 11], atol=1e-5)


def test_the_best_point_is_kept_when_a_search_fails():
    """A gradient of the wrong sign: every step goes up, and the start is the best that was seen."""
    p = nnx.Parameter(np.array([1.0, 2.0]))

    def closure():
        loss = (p * p).sum()
        loss.backward()
        p.grad = -p.grad
        return loss

    result = minimize([p], closure, method="CG", options={"maxiter": 5})
    np.testing.assert_array_equal(p.data, [1, 2])
    assert result.fun == 5
    np.testing.assert_array_equal(result.x, [1, 2])


@pytest.mark.parametrize("failure", [ZeroDivisionError, KeyboardInterrupt])
def test_parameters_are_put_back_when_something_raises(failure, rng):
    w, b, closure = problem(rng)
    w.data[...] = rng.standard_normal(4)
    before = w.data.copy()
    calls = []

    def failing():
        calls.append(w.data.copy())
        if len(calls) == 6:
            raise failure
        return closure()

    with pytest.raises(failure):
        minimize([w, b], failing)
    assert (calls[-1] != before).any()
    np.testing.assert_array_equal(w.data, before)
    assert b.data == 0 and w.grad is None


def test_an_unknown_method_is_scipys_error_and_changes_nothing(rng):
    w, b, closure = problem(rng)
    with pytest.raises(ValueError, match="Unknown solver"):
        minimize([w, b], closure, method="Adam")
    np.testing.assert_array_equal(w.data, 0)


def test_noise_is_refused(rng):
    """As with dropout in training mode, or a random batch."""
    w, b, closure = problem(rng)

    def noisy():
        return closure() + float(rng.standard_normal())

    with pytest.raises(ValueError, match=r"minimize: expected closure to give one loss .*dropout"):
        minimize([w, b], noisy)
    np.testing.assert_array_equal(w.data, 0)


def test_a_network_is_fitted_and_dropout_must_be_off(rng):
    model = nnx.nn.Sequential(nnx.nn.Linear(3, 8), nnx.nn.Tanh(), nnx.nn.Dropout(0.5), nnx.nn.Linear(8, 1))
    x = rng.standard_normal((40, 3)).astype(np.float32)
    y = np.sin(x.sum(axis=1, keepdims=True))

    def closure():
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        return loss

    with pytest.raises(ValueError, match=r"minimize: expected a model without noise, got Dropout '2' .*Switch dropout"):
        minimize(model, closure)
    with pytest.raises(ValueError, match="Switch dropout off"):
        minimize(list(model.parameters()), closure)  # without the model, the noise itself is found
    model.train()
    model[2].p = 0.0  # drops nothing: no noise
    minimize(model, closure, options={"maxiter": 1})
    model.eval()
    before = closure().item()
    result = minimize(model, closure, options={"maxiter": 200})
    assert result.fun < 0.05 * before
    assert closure().item() == pytest.approx(result.fun, rel=1e-4)


def test_errors(rng):
    w, b, closure = problem(rng)
    with pytest.raises(ValueError, match=r"minimize: expected closure to leave gradients .*'BFGS'"):
        minimize([w, b], lambda: (w * w).sum(), method="BFGS")
    with pytest.raises(TypeError, match="minimize: expected closure to return the loss"):
        minimize([w, b], lambda: closure() and None)
    with pytest.raises(TypeError, match="minimize: expected closure to be callable, got NoneType"):
        minimize([w, b], None)
    with pytest.raises(TypeError, match="minimize: expected model_or_params to be a Module or .*int"):
        minimize(3, closure)
    with pytest.raises(TypeError, match="model_or_params to hold Parameters, got ndarray"):
        minimize([np.ones(3)], closure)
    w.requires_grad = False
    with pytest.raises(ValueError, match="at least one parameter that requires a gradient"):
        minimize([w], closure)
    b.data.flags.writeable = False
    with pytest.raises(ValueError, match="the array of parameter 0 to be writeable"):
        minimize([b], closure)


def test_scipy_is_not_imported_with_nnx():
    import subprocess
    import sys

    code = "import nnx, sys; nnx.optim; assert not [m for m in sys.modules if m == 'scipy.optimize']"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("failing", (False, True))
@pytest.mark.parametrize("short", (1e9, 0.0), ids=("short", "long"))
def test_one_thread_where_evaluations_are_short(short, failing, monkeypatch):
    monkeypatch.setattr(sys.modules[minimize.__module__], "_SHORT", short)
    nnx.set_num_threads(3)
    x = nnx.Parameter(np.array([3.0, -2.0]))
    seen = []

    def closure():
        seen.append(nnx.get_num_threads())
        if failing and len(seen) > 3:
            raise RuntimeError("planted")
        loss = (x * x).sum()
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="planted") if failing else contextlib.nullcontext():
        nnx.optim.minimize([x], closure)
    assert seen[:2] == [3, 3], "the calls that are compared, and timed"
    assert set(seen[2:]) == ({1} if short else {3})
    assert nnx.get_num_threads() == 3
