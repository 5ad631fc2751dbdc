"""`deltas` and `jacobian`."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx import nn
from nnx.graph import deltas, jacobian
from nnx.testing import eval_numerical_gradient


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 2), nn.Sigmoid()).double()


def cost(target):
    return lambda y: 0.5 * ((y - target) ** 2).sum()


def test_deltas_are_the_slopes_of_the_weighted_sums(rng):
    model, x, target = network(), rng.standard_normal((5, 3)), rng.standard_normal((5, 2))
    first, last = deltas(model, x, cost(target))
    assert (first.name, last.name) == ("0", "2")
    np.testing.assert_array_equal(first.input, x)

    def behind_first(z):
        with nnx.no_grad():
            return cost(target)(model[3](model[2](model[1](nnx.tensor(z))))).item()

    numeric = eval_numerical_gradient(behind_first, first.output, 1e-6, centered=True)
    np.testing.assert_allclose(first.delta, numeric, rtol=1e-6, atol=1e-9)  # 1e-16 / 1e-6 is rounding


def test_deltas_leaves_the_model_as_it_was(rng):
    model, x = network(), rng.standard_normal((5, 3))
    kept = model[0].weight.grad = np.ones((4, 3))
    model[2].weight.requires_grad = False
    assert len(deltas(model, x, cost(0.0))) == 2
    assert model[0].weight.grad is kept and model[0].bias.grad is None
    assert not model[2].weight.requires_grad
    assert not any(m._forward_hooks for m in model.modules())
    with pytest.raises(ZeroDivisionError):
        deltas(model, x, lambda y: 1 / 0)
    assert model[0].weight.grad is kept and not any(m._forward_hooks for m in model.modules())


def test_deltas_of_a_convolution_and_of_a_layer_used_twice(rng):
    conv = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8, 1)).double()
    first, _ = deltas(conv, rng.standard_normal((2, 1, 4, 4)), lambda y: y.sum())
    assert first.delta.shape == (2, 2, 2, 2) and first.bias_grad is None and first.weight_grad.shape == (2, 1, 3, 3)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(self.layer(x))

    model, x = Twice().double(), rng.standard_normal((4, 3))
    one, two = deltas(model, x, lambda y: y.sum())
    np.testing.assert_allclose(one.delta.T @ one.input + two.delta.T @ two.input, one.weight_grad, rtol=1e-12)


def test_deltas_errors(rng):
    with pytest.raises(ValueError, match="deltas: expected a model with at least one layer that has a weight"):
        deltas(nn.ReLU(), np.ones((2, 3)), cost(0.0))
    with pytest.raises(ValueError, match="deltas: expected loss to return a Tensor with one number"):
        deltas(network(), np.ones((2, 3)), lambda y: y)


def test_jacobian_of_a_linear_map_and_shapes(rng):
    a = rng.standard_normal((2, 3))
    np.testing.assert_array_equal(jacobian(lambda x: nnx.tensor(a) @ x, np.ones(3)), a)
    assert jacobian(lambda x: x.reshape(6) * 2, rng.standard_normal((2, 3))).shape == (6, 2, 3)
    assert jacobian(lambda x: nnx.tensor([1.0]), np.ones(2)).tolist() == [[0, 0]]
    assert jacobian(lambda x: x.sum(), np.ones(2, np.float32)).dtype == np.float32


def test_jacobian_errors():
    with pytest.raises(TypeError, match="jacobian: expected function to return a Tensor, got ndarray"):
        jacobian(lambda x: x.data, np.ones(3))
