"""The genetic algorithm."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx import nn
from nnx.optim import genetic


def sphere():
    p, q = nnx.Parameter(np.array([3.0, -2.0])), nnx.Parameter(np.array(1.0))
    return p, q, lambda: ((p - 1) ** 2).sum() + q * q


def test_it_minimises_without_gradients():
    p, q, closure = sphere()
    result = genetic([p, q], closure, target=0.01, generator=np.random.default_rng(0))
    assert result.success and result.fun <= 0.01
    np.testing.assert_array_equal(result.x, [*p.data, q.data])
    assert closure().item() == pytest.approx(result.fun, rel=1e-12)
    assert np.all(np.diff(result.history) <= 0)
    assert len(result.history) == result.generations + 1
    assert result.evaluations == 60 + 56 * result.generations
    assert p.grad is None and q.grad is None


def test_the_seed_decides():
    runs = []
    for seed in (0, 0, 1):
        p, q, closure = sphere()
        runs.append(genetic([p, q], closure, generations=5, generator=np.random.default_rng(seed)).x)
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()
    nnx.manual_seed(0)
    p, q, closure = sphere()
    np.testing.assert_array_equal(genetic([p, q], closure, generations=5).x, runs[0])


def test_the_model_itself_is_in_the_first_population():
    p, q, closure = sphere()
    p.data[...], q.data[...] = 1, 0
    result = genetic([p, q], closure, generations=3)
    assert result.fun == 0 and not result.success  # no target to reach
    np.testing.assert_array_equal(p.data, 1)


def test_float32_and_frozen_parameters():
    model = nn.Linear(2, 1)
    model.bias.requires_grad = False
    bias = model.bias.data.copy()
    genetic(model, lambda: (model(np.ones((1, 2))) ** 2).sum(), generations=2)
    np.testing.assert_array_equal(model.bias.data, bias)
    assert model.weight.dtype == np.float32


def test_nan_is_the_worst_of_all():
    p = nnx.Parameter(np.array([4.0]))
    result = genetic([p], lambda: nnx.log(p).sum() if p.data[0] > 0 else np.nan, generations=20)
    assert np.isfinite(result.fun) and p.data[0] > 0


@pytest.mark.parametrize("at", [1, 30, 100])
def test_parameters_are_put_back_when_the_closure_raises(at):
    p, q, closure = sphere()
    calls = []

    def failing():
        calls.append(1)
        if len(calls) == at:
            raise ZeroDivisionError
        return closure()

    with pytest.raises(ZeroDivisionError):
        genetic([p, q], failing)
    np.testing.assert_array_equal(p.data, [3, -2])
    assert q.data == 1


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"population": 1}, ValueError, "genetic: expected population to be an integer >= 2, got 1"),
        ({"population": 4}, ValueError, "genetic: expected elite < population, got 4 and 4"),
        ({"generations": -1}, ValueError, "genetic: expected generations to be an integer >= 0"),
        ({"mutation": 1.5}, ValueError, r"genetic: expected mutation to be a number in \[0, 1\]"),
        ({"sigma": -1}, ValueError, "genetic: expected sigma"),
        ({"spread": np.nan}, ValueError, "genetic: expected spread"),
        ({"elite": 0}, ValueError, "genetic: expected elite"),
        ({"tournament": 0}, ValueError, "genetic: expected tournament"),
        ({"target": "low"}, TypeError, "genetic: expected target to be a number"),
        ({"generator": 3}, TypeError, "expected a numpy.random.Generator, got int"),
    ],
)
def test_errors(options, error, text):
    p, q, closure = sphere()
    with pytest.raises(error, match=text):
        genetic([p, q], closure, **options)
    np.testing.assert_array_equal(p.data, [3, -2])


def test_a_closure_that_is_none_and_dropout_in_training_mode():
    p, q, _ = sphere()
    with pytest.raises(TypeError, match="genetic: expected closure to be callable, got NoneType"):
        genetic([p, q], None)
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3))
    with pytest.raises(ValueError, match=r"genetic: expected a model without noise, got Dropout '1' in training mode"):
        genetic(model, lambda: 0.0)
