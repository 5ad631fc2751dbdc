"""Conventions at special points, where a table of random values does not come: the same as PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx.autograd import Tensor

torch = pytest.importorskip("torch")

SPECIAL = [-np.inf, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, np.inf, np.nan]

UNARY = {
    "abs": lambda m, x: m.abs(x),
    "sign": lambda m, x: m.sign(x),
    "square": lambda m, x: m.square(x),
    "exp": lambda m, x: m.exp(x),
    "log": lambda m, x: m.log(x),
    "sqrt": lambda m, x: m.sqrt(x),
    "relu": lambda m, x: m.relu(x),
    "sigmoid": lambda m, x: m.sigmoid(x),
    "tanh": lambda m, x: m.tanh(x),
    "pow 0": lambda m, x: x**0,
    "pow 1": lambda m, x: x**1,
    "pow 2": lambda m, x: x**2,
    "pow 3.0": lambda m, x: x**3.0,
    "pow -1": lambda m, x: x**-1,
    "reciprocal": lambda m, x: 1 / x,
    "clamp": lambda m, x: m.clamp(x, -1, 1),
    "clamp min": lambda m, x: m.clamp(x, min=0.5),
    "clamp max": lambda m, x: m.clamp(x, max=0.5),
    "one minus": lambda m, x: 1 - x,
    "where": lambda m, x: m.where(x > 0, x, x * 2),
}


def both(function, *values):
    """Result and gradients from nnx and from PyTorch, at the same values."""
    ours = [Tensor(np.array(v), requires_grad=True) for v in values]
    theirs = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]
    y, t = function(nnx, *ours), function(torch, *theirs)
    y.sum().backward()
    t.sum().backward()
    return (
        [y.data, *(x.grad for x in ours)],
        [t.detach().numpy(), *(x.grad.numpy() for x in theirs)],
    )


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("value", SPECIAL)
def test_special_values(name, value):
    if name == "sign" and np.isnan(value):
        pytest.skip("the sign of NaN is 0 in PyTorch; here NaN is passed on, as in NumPy")
    ours, theirs = both(UNARY[name], [value])
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-14)
    if np.isfinite(theirs[0]).all() and np.isfinite(value):  # past these the slope is no convention but chance
        np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-13)


@pytest.mark.parametrize("operation", ["maximum", "minimum"])
def test_ties(operation):
    ours, theirs = both(lambda m, a, b: getattr(m, operation)(a, b), [1.0, 2.0, 3.0, -0.0], [1.0, 3.0, 2.0, 0.0])
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["amax", "amin"])
def test_ties_of_reductions(name):
    ours, theirs = both(lambda m, x: getattr(m, name)(x, 1), [[2.0, 2.0, 1.0], [0.0, 0.0, 0.0]])
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-15)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, float("inf")])
def test_norms_with_zeros(p):
    rows = [[0.0, 0.0], [0.0, -3.0], [3.0, 4.0], [2.0, 2.0]]
    ours, theirs = both(lambda m, x: m.norm(x, p, 1), rows)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)


@pytest.mark.parametrize(("base", "exponent"), [(0.0, 0.0), (0.0, 2.0), (2.0, 0.0), (-2.0, 2.0), (1.0, -1.0)])
def test_powers_with_tensor_exponents(base, exponent):
    ours, theirs = both(lambda m, a, e: a**e, [base], [exponent])
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[1], theirs[1])
    if base >= 0:
        np.testing.assert_allclose(ours[2], theirs[2])


@pytest.mark.parametrize("correction", [0, 1, 2])
def test_variance(correction):
    ours, theirs = both(lambda m, x: m.var(x, 1, correction=correction), [[1.0, 2.0, 4.0], [3.0, 3.0, 3.0]])
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)
