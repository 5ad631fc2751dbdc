"""Rows of nnx.course.activations."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import nnx
import nnx.functional as F
from nnx import nn
from nnx.course import activations as topic


def test_F091_positive_inputs_give_gradients_of_one_sign(rng):
    x = rng.random((50, 6)) + 0.01
    signs = np.sign(topic.weight_gradients(x, seed=1))
    assert (signs == signs[:, :1]).all() and (signs != 0).all()
    assert {-1.0, 1.0} == set(signs[:, 0])  # some push up, some down
    centred = np.sign(topic.weight_gradients(x - x.mean(axis=0), seed=1))
    assert not (centred == centred[:, :1]).all()


def test_F091_the_zigzag_takes_longer():
    needed = {}
    for positive in (True, False):
        way = topic.zigzag(positive, 300)
        needed[positive] = int(np.argmax(np.abs(way - [1.0, -1.0]).max(axis=1) < 0.05))
        steps = np.diff(way, axis=0)
        if positive:
            assert (np.sign(steps[:, 0]) == np.sign(steps[:, 1])).all()
    assert needed[True] > 2 * needed[False] > 0


def test_F100_sigmoid_is_stable_and_its_slope_is_a_quarter_at_most():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for dtype in (np.float32, np.float64):
            x = np.array([-1e4, 1e4, 0.0], dtype)
            assert F.sigmoid(x).data.tolist() == [0, 1, 0.5]
            leaf = nnx.tensor(x, requires_grad=True)
            F.sigmoid(leaf).sum().backward()
            assert leaf.grad.tolist() == [0, 0, 0.25]
    assert topic.value_and_slope(F.sigmoid, -3.0)[1] == pytest.approx(0.04518, abs=5e-6)
    slopes = topic.value_and_slope(F.sigmoid, np.linspace(-5, 5, 1001))[1]
    assert slopes.max() == slopes[500] == 0.25


def test_F101_tanh_is_a_scaled_sigmoid():
    x = np.linspace(-5, 5, 1001)
    difference = np.abs(F.tanh(x).data - (2 * F.sigmoid(2 * x).data - 1)).max()
    assert difference <= 2 * np.finfo(np.float64).eps  # one rounding near 1 on each side
    np.testing.assert_allclose(F.tanh(x).data, np.tanh(x), rtol=1e-14)
    slopes = topic.value_and_slope(F.tanh, x)[1]
    assert slopes.max() == slopes[500] == 1


def test_F102_relu_has_slope_zero_at_zero():
    values, slopes = topic.value_and_slope(F.relu, [-2.0, -0.0, 0.0, 1e-300, 3.0])
    assert values.tolist() == [0, 0, 0, 1e-300, 3]
    assert slopes.tolist() == [0, 0, 0, 1, 1]
    assert "slope at 0 is 0" in F.relu.__doc__


def same_as_torch(ours, theirs, rtol):
    torch = pytest.importorskip("torch")
    x = np.linspace(-4, 4, 81)
    values, slopes = topic.value_and_slope(ours, x)
    leaf = torch.tensor(x, requires_grad=True)
    y = theirs(torch.nn.functional)(leaf)
    y.sum().backward()
    np.testing.assert_allclose(values, y.detach().numpy(), rtol=rtol, atol=1e-15)
    np.testing.assert_allclose(slopes, leaf.grad.numpy(), rtol=rtol, atol=1e-15)


@pytest.mark.parametrize("slope", [0.01, 0.1])
def test_F103_leaky_relu_with_both_slopes_of_the_documents(slope):
    x = np.array([-3.0, 0.0, 2.0])
    np.testing.assert_array_equal(F.leaky_relu(x, slope).data, np.maximum(slope * x, x))
    assert F.leaky_relu(x).data[0] == -0.03  # X5: the default is 0.01


@pytest.mark.parametrize("slope", [0.01, 0.1])
def test_F103_leaky_relu_equals_pytorch(slope):
    same_as_torch(lambda v: F.leaky_relu(v, slope), lambda t: lambda v: t.leaky_relu(v, slope), 1e-15)


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_F104_elu(alpha):
    x = np.array([-2.0, 0.0, 3.0])
    expected = np.where(x > 0, x, alpha * (np.exp(x) - 1))
    np.testing.assert_allclose(F.elu(x, alpha).data, expected, rtol=1e-14)


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_F104_elu_equals_pytorch(alpha):
    same_as_torch(lambda v: F.elu(v, alpha), lambda t: lambda v: t.elu(v, alpha), 1e-6)


def test_F105_maxout_contains_relu_and_leaky_relu(rng):
    x = rng.standard_normal((30, 3))
    for slope in (0.0, 0.01):
        layer, linear = topic.maxout_as_relu(3, 4, slope)
        # the two products have different sizes and may round differently
        np.testing.assert_allclose(layer(x).data, F.leaky_relu(linear(x), slope).data, rtol=1e-12, atol=1e-14)
    layer.weight.data.reshape(4, 2, 3)[:, 0] = 1.0  # another piece: no longer
    assert np.abs(layer(x).data - F.relu(linear(x)).data).max() > 0.1


@pytest.mark.parametrize("pieces", [2, 3, 5])
def test_F105_maxout_formula_and_parameter_count(pieces, rng):
    """Chainer's and Thinc's formula: a product with all pieces, the pieces of an output side by side, the largest."""
    layer = nn.Maxout(4, 3, pieces).double()
    x = rng.standard_normal((7, 4))
    z = x @ layer.weight.data.T + layer.bias.data
    np.testing.assert_allclose(layer(x).data, z.reshape(7, 3, pieces).max(axis=2), rtol=1e-12)
    linear = sum(p.size for p in nn.Linear(4, 3).parameters())
    assert sum(p.size for p in layer.parameters()) == pieces * linear


def test_F105_maxout_trains():
    """It never saturates: one layer of it and an output solve XOR."""
    nnx.manual_seed(1)
    model = nn.Sequential(nn.Maxout(2, 4), nn.Linear(4, 1))
    x, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), np.array([[0], [1], [1], [0]], np.float32)
    optimizer = nnx.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        optimizer.step()
    assert np.abs(model(x).data - y).max() < 0.1


def test_F107_saturation_questions():
    x = [-10.0, 0.0, 10.0]
    values, slopes = topic.value_and_slope(F.sigmoid, x)
    assert slopes == pytest.approx([4.54e-5, 0.25, 4.54e-5], rel=1e-3)
    assert values == pytest.approx([4.54e-5, 0.5, 1 - 4.54e-5], rel=1e-3)
    values, slopes = topic.value_and_slope(F.relu, x)
    assert values.tolist() == [0, 0, 10] and slopes.tolist() == [0, 0, 1]


def test_F108_linear_and_softmax_outputs(rng):
    model, x = nn.Linear(4, 3).double(), rng.standard_normal((5, 4))
    np.testing.assert_allclose(model(x).data, x @ model.weight.data.T + model.bias.data, rtol=1e-12)
    p = F.softmax(model(x), dim=1).data
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-14)
    assert (p > 0).all() and (p.argmax(axis=1) == model(x).data.argmax(axis=1)).all()
    one = F.softmax(np.array([[3.2, 5.1, -1.7]]), dim=1).data
    np.testing.assert_allclose(one, [[0.12998, 0.86905, 0.00097]], atol=5e-6)
