"""Linear, Bilinear and the layers that only reshape."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx import nn
from nnx.autograd import Tensor
from nnx.testing import gradcheck


def test_linear(rng):
    layer = nn.Linear(3, 2)
    x = rng.standard_normal((5, 3)).astype(np.float32)
    np.testing.assert_allclose(layer(x).data, x @ layer.weight.data.T + layer.bias.data, rtol=1e-5, atol=1e-6)
    assert [(n, p.shape, p.dtype) for n, p in layer.named_parameters()] == [
        ("weight", (2, 3), np.float32),
        ("bias", (2,), np.float32),
    ]
    assert nn.Linear(3, 2, bias=False).bias is None
    assert list(nn.Linear(3, 2, bias=False).state_dict()) == ["weight"]
    assert nn.Linear(3, 2, dtype=np.float64).weight.dtype == np.float64


def test_any_array_enters_a_linear_layer(rng):
    layer = nn.Linear(3, 2)
    x = rng.integers(0, 9, (4, 3))
    expected = layer(x.astype(np.float32)).data
    for a in (x, x.astype(np.uint8), x.astype(float), x.tolist(), np.asfortranarray(x), x.astype(">f8")):
        y = layer(a)
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y.data, expected)
    assert layer(x[0]).shape == (2,)
    assert layer(np.zeros((0, 3))).shape == (0, 2)


def test_the_bits_of_a_row_do_not_depend_on_where_it_lies(rng):
    layer = nn.Linear(13, 7)
    x = rng.standard_normal((9, 13))
    assert layer(x).data.tobytes() == layer(x[::-1]).data[::-1].tobytes()


@pytest.mark.parametrize(
    "layer", [nn.Linear(3, 2), nn.Linear(3, 2, bias=False), nn.Linear(3, 1), nn.Linear(3, 0)], ids=repr
)
def test_gradients(layer, rng):
    if layer.out_features:
        gradcheck(layer.double(), rng.standard_normal((4, 3)))
    else:
        layer(np.ones((4, 3))).sum().backward()
        assert layer.weight.grad.shape == (0, 3)


@pytest.mark.parametrize("bias", [True, False])
def test_bilinear(bias, rng):
    layer = nn.Bilinear(3, 4, 2, bias).double()
    a, b = rng.standard_normal((5, 3)), rng.standard_normal((5, 4))
    expected = np.einsum("ni,oij,nj->no", a, layer.weight.data, b) + (layer.bias.data if bias else 0)
    np.testing.assert_allclose(layer(a, b).data, expected, rtol=1e-12)
    gradcheck(layer, (a, b))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.Linear(784, 10)(np.ones((3, 28))), ValueError,
         r"Linear: expected input with 784 features in the last dimension, got shape \(3, 28\)"),
        (lambda: nn.Linear(3, 2)(Tensor(np.ones((4, 3)))), TypeError,
         "Linear: expected input of dtype float32 like the parameters, got a Tensor of dtype float64"),
        (lambda: nn.Linear(3, 2)("text"), TypeError, "as_tensor: expected an array of numbers"),
        (lambda: nn.Linear(-1, 2), ValueError, "Linear: expected in_features to be an integer >= 0, got -1"),
        (lambda: nn.Linear(3, 2.5), TypeError, "Linear: expected out_features to be an integer >= 0, got 2.5"),
        (lambda: nn.Linear(3, True), TypeError, r"Linear: expected out_features.*got True \(bool\)"),
        (lambda: nn.Linear(3, 2, device="tpu"), ValueError, "Linear: expected device to be .*got 'tpu'"),
        (lambda: nn.Linear(3, 2, dtype=np.int32), TypeError, "Linear: expected dtype to be float32 or float64"),
        (lambda: nn.Bilinear(0, 2, 3), ValueError, "Bilinear: expected in1_features to be an integer >= 1, got 0"),
        (lambda: nn.Bilinear(3, 4, 2)(np.ones((5, 4)), np.ones((5, 4))), ValueError,
         r"Bilinear: expected input1 with 3 features in the last dimension, got shape \(5, 4\)"),
        (lambda: nn.Bilinear(3, 4, 2)(np.ones((5, 3)), np.ones((6, 4))), ValueError,
         "Bilinear: expected inputs of equal shape but for the last dimension"),
        (lambda: nn.Flatten(1.5), TypeError, "Flatten: expected start_dim to be an integer, got 1.5"),
        (lambda: nn.Flatten(2)(np.ones((3, 3))), IndexError, "flatten: expected start_dim to be in"),
        (lambda: nn.Unflatten(1, (2, 3))(np.ones((2, 7))), ValueError,
         r"Unflatten: expected dimension 1 to split into \(2, 3\), got shape \(2, 7\)"),
        (lambda: nn.Unflatten(1, (-1, -1))(np.ones((2, 7))), ValueError, "Unflatten: expected dimension 1 to split"),
        (lambda: nn.Unflatten("C", (2, 3)), ValueError, "Unflatten: expected dim to be an integer"),
        (lambda: nn.Unflatten(1, 6), TypeError,
         "Unflatten: expected unflattened_size to be a tuple of integers, got 6"),
        (lambda: nn.Unflatten(2, (2, 3))(np.ones((2, 6))), IndexError, "Unflatten: expected dim to be in"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error, match=rf"^{message}"):
        call()


def test_identity(rng):
    x = Tensor(rng.standard_normal((2, 3)))
    assert nn.Identity(54, unused=True)(x) is x
    assert isinstance(nn.Identity()(np.ones(3)), Tensor)


def test_flatten_is_in_logical_order(rng):
    x = rng.standard_normal((2, 3, 4, 5))
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(nn.Flatten()(last).data, x.reshape(2, 60))
    assert nn.Flatten(0)(x).shape == (120,)
    assert nn.Flatten(1, 2)(x).shape == (2, 12, 5)
    assert nn.Flatten()(np.zeros((0, 3, 4))).shape == (0, 12)


def test_unflatten_undoes_flatten(rng):
    x = rng.standard_normal((2, 3, 4, 5))
    for sizes in [(3, 4, 5), [3, -1, 5], (-1, 4, 5)]:
        np.testing.assert_array_equal(nn.Unflatten(1, sizes)(nn.Flatten()(x)).data, x)
    assert nn.Unflatten(-1, (5, 1))(x).shape == (2, 3, 4, 5, 1)
    assert nn.Unflatten(0, (0, 3))(np.zeros((0, 2))).shape == (0, 3, 2)


def test_repr():
    assert repr(nn.Linear(3, 2)) == "Linear(in_features=3, out_features=2, bias=True)"
    assert repr(nn.Bilinear(3, 4, 2, bias=False)) == (
        "Bilinear(in1_features=3, in2_features=4, out_features=2, bias=False)"
    )
    assert repr(nn.Flatten()) == "Flatten(start_dim=1, end_dim=-1)"
    assert repr(nn.Unflatten(1, (3, 4))) == "Unflatten(dim=1, unflattened_size=(3, 4))"


def test_the_seed_decides():
    def weights():
        nnx.manual_seed(5)
        return nn.Linear(3, 2).weight.data

    np.testing.assert_array_equal(weights(), weights())
