"""Newton's method and the Hessian."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx import nn
from nnx.optim import Newton, hessian


def problem(function, *start):
    p = nnx.Parameter(np.array(start, np.float64))

    def closure():
        p.grad = None
        loss = function(p)
        loss.backward()
        return loss

    return p, closure


def saddle(p):
    return p[0] ** 2 - p[1] ** 2 + p[1] ** 4 / 4


def test_the_hessian_of_a_quadratic(rng):
    a = rng.standard_normal((4, 4))
    a = a + a.T
    p, closure = problem(lambda p: (p * (nnx.tensor(a) @ p)).sum() / 2, 1.0, -2.0, 30.0, 0.5)
    # differences of a linear gradient: rounding alone, 1e-16 of the largest entry over the step 1e-4
    np.testing.assert_allclose(hessian([p], closure), a, atol=1e-9)


def test_the_hessian_of_rosenbrock_and_of_a_network(rng):
    import scipy.optimize

    p, closure = problem(lambda p: 100 * (p[1] - p[0] ** 2) ** 2 + (1 - p[0]) ** 2, -1.2, 1.0)
    np.testing.assert_allclose(hessian(p, closure), scipy.optimize.rosen_hess(p.data), rtol=1e-6)
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    x = rng.standard_normal((6, 2))

    def loss():
        value = (model(x) ** 2).sum()
        value.backward()
        return value

    model[0].weight.grad = kept = np.ones((3, 2))
    before = [q.data.copy() for q in model.parameters()]
    h = hessian(model, loss)
    assert h.shape == (13, 13) and (h == h.T).all()
    # along a direction: second difference of the loss, whose rounding is 1e-16 / 1e-8
    d = rng.standard_normal(13)
    parts = np.split(d, np.cumsum([q.size for q in model.parameters()])[:-1])

    def along(t):
        for q, b, part in zip(model.parameters(), before, parts, strict=True):
            q.data[...] = b + t * part.reshape(b.shape)
        with nnx.no_grad():
            return (model(x) ** 2).sum().item()

    for q, b in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(q.data, b)
    second = (along(1e-4) - 2 * along(0) + along(-1e-4)) / 1e-8
    assert second == pytest.approx(d @ h @ d, rel=1e-5)
    assert model[0].weight.grad is kept


def test_one_step_finds_the_minimum_of_a_quadratic():
    p, closure = problem(lambda p: 5 * p[0] ** 2 + p[1] ** 2 / 2, 1.0, 1.0)
    assert Newton([p]).step(closure).item() == 5.5
    np.testing.assert_allclose(p.data, [0, 0], atol=1e-12)


def test_convergence_is_quadratic():
    p, closure = problem(lambda p: (p - 1 - nnx.log(p)).sum(), 0.5)  # minimum at 1
    optimizer = Newton([p])
    errors = [0.5]
    for _ in range(4):
        optimizer.step(closure)
        errors.append(abs(p.data[0] - 1))
    for before, after in zip(errors[:-1], errors[1:], strict=True):
        assert after == pytest.approx(before**2, rel=0.01, abs=1e-9)  # here the error is exactly squared


def test_it_runs_into_a_saddle_point_unless_damped():
    p, closure = problem(saddle, 0.5, 0.1)
    optimizer = Newton([p])
    for _ in range(6):
        optimizer.step(closure)
    np.testing.assert_allclose(p.data, [0, 0], atol=1e-9)
    assert np.linalg.eigvalsh(hessian([p], closure))[0] == pytest.approx(-2, abs=1e-6)
    p, closure = problem(saddle, 0.5, 0.1)
    optimizer = Newton([p], damping=4.0)
    for _ in range(60):
        optimizer.step(closure)
    np.testing.assert_allclose(p.data, [0, np.sqrt(2)], atol=1e-6)


def test_lr_scales_the_step_and_frozen_parameters_stay():
    p, closure = problem(lambda p: (p * p).sum(), 2.0, -4.0)
    frozen = nnx.Parameter(np.ones(3), requires_grad=False)
    Newton([p, frozen], lr=0.5).step(closure)
    np.testing.assert_allclose(p.data, [1, -2], atol=1e-9)
    np.testing.assert_array_equal(frozen.data, 1)


def test_errors_change_nothing():
    p, closure = problem(lambda p: p[0] ** 2 + 0 * p[1], 1.0, 1.0)
    with pytest.raises(ValueError, match="Newton.step: expected an invertible Hessian, got one of 2 rows.*damping"):
        Newton([p]).step(closure)
    np.testing.assert_array_equal(p.data, [1, 1])
    with pytest.raises(TypeError, match="Newton.step: expected a closure, got None"):
        Newton([p]).step()
    with pytest.raises(ValueError, match="Newton: expected one parameter group, got 2"):
        Newton([{"params": [p]}, {"params": [nnx.Parameter(np.ones(2))]}])
    with pytest.raises(ValueError, match="Newton: expected damping"):
        Newton([p], damping=-1)
    with pytest.raises(ValueError, match="Newton: expected step"):
        Newton([p], step=0)
    with pytest.raises(ValueError, match="Newton.step: expected at least one parameter that requires a gradient"):
        Newton([nnx.Parameter(np.ones(2), requires_grad=False)]).step(closure)
    bad, infinite = problem(lambda p: (p * np.inf).sum(), 1.0)
    with pytest.raises(ValueError, match="Newton.step: expected finite gradients, got NaN or infinity"):
        Newton([bad]).step(infinite)
    np.testing.assert_array_equal(bad.data, 1)
    short = nnx.Parameter(np.ones(2, np.float32))
    with pytest.raises(TypeError, match="Newton.step: expected parameters of float64, got float32 as parameter 0"):
        Newton([short]).step(closure)
    with pytest.raises(TypeError, match="hessian: expected parameters of float64"):
        hessian([short], closure)
    with pytest.raises(ValueError, match="hessian: expected closure to leave gradients, got none"):
        hessian([p], lambda: 1.0)
    np.testing.assert_array_equal(p.data, [1, 1])

    calls = []

    def failing():
        calls.append(p.data.copy())
        if len(calls) == 3:
            raise ZeroDivisionError
        return closure()

    with pytest.raises(ZeroDivisionError):
        Newton([p]).step(failing)
    assert (calls[2] != 1).any()
    np.testing.assert_array_equal(p.data, [1, 1])
