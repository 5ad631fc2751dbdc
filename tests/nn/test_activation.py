"""Activation layers: what they hand to the functions, what they show, what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
import nnx.functional as F
from nnx import nn

LAYERS = [
    (nn.ReLU(), F.relu, "ReLU()"),
    (nn.ReLU(inplace=True), F.relu, "ReLU(inplace=True)"),
    (nn.LeakyReLU(), F.leaky_relu, "LeakyReLU(negative_slope=0.01)"),
    (nn.LeakyReLU(0.2, True), lambda x: F.leaky_relu(x, 0.2), "LeakyReLU(negative_slope=0.2, inplace=True)"),
    (nn.PReLU(), lambda x: F.prelu(x, 0.25), "PReLU(num_parameters=1)"),
    (nn.PReLU(4, 0.5), lambda x: F.prelu(x, [0.5] * 4), "PReLU(num_parameters=4)"),
    (nn.ELU(2), lambda x: F.elu(x, 2), "ELU(alpha=2)"),
    (nn.SELU(), F.selu, "SELU()"),
    (nn.CELU(0.5), lambda x: F.celu(x, 0.5), "CELU(alpha=0.5)"),
    (nn.GELU(), F.gelu, "GELU(approximate='none')"),
    (nn.GELU("tanh"), lambda x: F.gelu(x, "tanh"), "GELU(approximate='tanh')"),
    (nn.SiLU(), F.silu, "SiLU()"),
    (nn.Mish(), F.mish, "Mish()"),
    (nn.Sigmoid(), F.sigmoid, "Sigmoid()"),
    (nn.Tanh(), F.tanh, "Tanh()"),
    (nn.Softplus(2, 5), lambda x: F.softplus(x, 2, 5), "Softplus(beta=2, threshold=5)"),
    (nn.LogSigmoid(), F.logsigmoid, "LogSigmoid()"),
    (nn.Softsign(), F.softsign, "Softsign()"),
    (nn.Hardtanh(-2, 0.5), lambda x: F.hardtanh(x, -2, 0.5), "Hardtanh(min_val=-2, max_val=0.5)"),
    (nn.ReLU6(), F.relu6, "ReLU6()"),
    (nn.Hardsigmoid(), F.hardsigmoid, "Hardsigmoid()"),
    (nn.Hardswish(), F.hardswish, "Hardswish()"),
    (nn.Softmax(1), lambda x: F.softmax(x, 1), "Softmax(dim=1)"),
    (nn.Softmin(dim=-1), lambda x: F.softmin(x, -1), "Softmin(dim=-1)"),
    (nn.LogSoftmax(0), lambda x: F.log_softmax(x, 0), "LogSoftmax(dim=0)"),
    (nn.GLU(1), lambda x: F.glu(x, 1), "GLU(dim=1)"),
]


@pytest.mark.parametrize(("layer", "function", "text"), LAYERS, ids=[row[2] for row in LAYERS])
def test_layer(layer, function, text, rng):
    x = rng.standard_normal((3, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(layer(x).data, function(x).data)
    assert repr(layer) == text
    assert not list(layer.buffers())


def test_every_layer_is_tested():
    from nnx.nn import activation

    assert {type(row[0]).__name__ for row in LAYERS} | {"Maxout"} == set(activation.__all__)


# -- layers with parameters ------------------------------------------------------------------------


def test_prelu_learns_its_slope():
    layer = nn.PReLU(dtype=np.float64)
    assert list(layer.state_dict()) == ["weight"] and layer.weight.data.tolist() == [0.25]
    layer(np.array([[-2.0, 3.0]])).sum().backward()
    assert layer.weight.grad.tolist() == [-2]
    layer.weight.data[...] = 7
    layer.reset_parameters()
    assert layer.weight.data.tolist() == [0.25]


def test_maxout_with_a_zero_piece_is_relu(rng):
    layer, linear = nn.Maxout(3, 4, dtype=np.float64), nn.Linear(3, 4, dtype=np.float64)
    layer.weight.data.reshape(4, 2, 3)[...] = np.stack([linear.weight.data, np.zeros((4, 3))], 1)
    layer.bias.data.reshape(4, 2)[...] = np.stack([linear.bias.data, np.zeros(4)], 1)
    x = rng.standard_normal((5, 3))
    np.testing.assert_allclose(layer(x).data, F.relu(linear(x)).data, rtol=1e-12)


def test_maxout_is_the_largest_of_its_pieces(rng):
    layer = nn.Maxout(3, 4, num_pieces=5, dtype=np.float64)
    x = rng.standard_normal((2, 6, 3))
    pieces = x @ layer.weight.data.T + layer.bias.data
    expected = pieces.reshape(2, 6, 4, 5).max(-1)
    np.testing.assert_allclose(layer(x).data, expected, rtol=1e-12)


def test_maxout_parameters():
    """Two pieces have twice the parameters of a linear layer."""
    assert sum(p.size for p in nn.Maxout(7, 3).parameters()) == 2 * (7 * 3 + 3)
    layer = nn.Maxout(16, 3, 4, bias=False)
    assert list(layer.state_dict()) == ["weight"] and layer.weight.shape == (12, 16)
    assert np.abs(layer.weight.data).max() <= 0.25 and layer.weight.data.std() > 0.1
    assert repr(layer) == "Maxout(in_features=16, out_features=3, num_pieces=4, bias=False)"


def test_maxout_gradient(rng):
    layer = nn.Maxout(3, 2, 3).double()
    nnx.testing.gradcheck(layer, rng.standard_normal((4, 3)))


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (lambda: nn.Softmax(), ValueError, "Softmax: expected dim to be a dimension, got None"),
        (lambda: nn.LogSoftmax(1.0), TypeError, "LogSoftmax: expected dim to be an integer"),
        (lambda: nn.Softmax(3)(np.ones((2, 2))), IndexError, "Softmax: expected dim to be in"),
        (lambda: nn.Softmin(3)(np.ones((2, 2))), IndexError, "Softmin: expected dim to be in"),
        (lambda: nn.LeakyReLU("a"), TypeError, "LeakyReLU: expected negative_slope to be a number"),
        (lambda: nn.ELU(None), TypeError, "ELU: expected alpha to be a number"),
        (lambda: nn.CELU(0), ValueError, r"CELU: expected alpha to be a number in \(0, inf\)"),
        (lambda: nn.GELU("erf"), ValueError, "GELU: expected approximate to be one of 'none', 'tanh'"),
        (lambda: nn.Softplus(0), ValueError, "Softplus: expected beta other than 0, got 0"),
        (lambda: nn.Hardtanh(2, 1), ValueError, "Hardtanh: expected min_val < max_val, got 2 and 1"),
        (lambda: nn.Hardtanh(min_value=1), TypeError,
         "Hardtanh: expected no argument min_value, which is deprecated, got 1. Use min_val"),
        (lambda: nn.Hardtanh(max_value=1), TypeError, "Hardtanh: expected no argument max_value.*Use max_val"),
        (lambda: nn.PReLU(0), ValueError, "PReLU: expected num_parameters to be an integer >= 1, got 0"),
        (lambda: nn.PReLU(3)(np.ones((2, 4))), ValueError, "PReLU: expected weight with 1 element or one for each"),
        (lambda: nn.PReLU(device="tpu"), ValueError, "PReLU: expected device to be .*got 'tpu'"),
        (lambda: nn.PReLU(dtype=int), TypeError, "PReLU: expected dtype to be float32 or float64"),
        (lambda: nn.PReLU()(nnx.Tensor(np.ones(3))), TypeError, "PReLU: expected input of dtype float32"),
        (lambda: nn.GLU()(np.ones((2, 3))), ValueError, "GLU: expected input with an even size in dimension 1"),
        (lambda: nn.Maxout(0, 3), ValueError, "Maxout: expected in_features to be an integer >= 1, got 0"),
        (lambda: nn.Maxout(3, 3, 0), ValueError, "Maxout: expected num_pieces to be an integer >= 1"),
        (lambda: nn.Maxout(3, 3)(np.ones((2, 4))), ValueError,
         "Maxout: expected input with 3 features in the last dimension"),
        (lambda: nn.Maxout(3, 3, device="tpu"), ValueError, "Maxout: expected device to be .*got 'tpu'"),
    ],
)  # fmt: skip
def test_errors(action, error, message):
    with pytest.raises(error, match=message):
        action()
