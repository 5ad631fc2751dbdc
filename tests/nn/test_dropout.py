"""Dropout layers: on in training mode, off in evaluation mode, in the library's random stream."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
import nnx.functional as F
from nnx import nn
from nnx.testing import gradcheck

LAYERS = [
    (nn.Dropout, F.dropout, (50, 20)),
    (nn.Dropout1d, F.dropout1d, (50, 20, 3)),
    (nn.Dropout2d, F.dropout2d, (50, 20, 3, 2)),
    (nn.Dropout3d, F.dropout3d, (50, 20, 3, 2, 2)),
    (nn.AlphaDropout, F.alpha_dropout, (50, 20)),
]
each = pytest.mark.parametrize(("layer", "function", "shape"), LAYERS, ids=lambda v: getattr(v, "__name__", None))


@each
def test_training_and_evaluation(layer, function, shape, rng):
    x = rng.standard_normal(shape).astype(np.float32)
    net = nn.Sequential(layer(0.3))
    nnx.manual_seed(5)
    y = net(x).data
    np.testing.assert_array_equal(y, function(x, 0.3, True, generator=np.random.default_rng(5)).data)
    assert 0.1 < (y != x).mean() and (net(x).data != y).any()
    np.testing.assert_array_equal(net.eval()(x).data, x)
    np.testing.assert_array_equal(net.train().predict(x), x)
    assert (net(x).data != x).any()


@each
def test_shows_its_arguments(layer, function, shape):
    assert repr(layer()) == f"{layer.__name__}(p=0.5)"
    assert repr(layer(0.2, inplace=True)) == f"{layer.__name__}(p=0.2, inplace=True)"
    assert not layer().state_dict()


@each
def test_errors(layer, function, shape):
    name = layer.__name__
    with pytest.raises(ValueError, match=rf"{name}: expected p to be a number in \[0, 1\], got 2"):
        layer(2)
    with pytest.raises(TypeError, match=f"{name}: expected p to be a number"):
        layer("0.5")
    with pytest.raises(TypeError, match=f"{name}: expected input of dtype float32 or float64"):
        layer()(nnx.Tensor(np.ones(shape, int)))
    if len(shape) > 2:
        with pytest.raises(ValueError, match=rf"{name}: expected input of shape \(N, C, .*got shape \(3,\)"):
            layer()(np.ones(3))


def test_same_seed_same_training_step():
    """Two nets with the same seed drop the same units, one after the other."""
    results = []
    for _ in range(2):
        nnx.manual_seed(7)
        net = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 8), nn.AlphaDropout(0.3))
        x = nnx.Tensor(np.ones((4, 8), np.float32), requires_grad=True)
        net(x).sum().backward()
        results.append(x.grad.tobytes())
    assert results[0] == results[1]


def test_plain_dropout(rng):
    x = rng.standard_normal((50, 20)).astype(np.float32)
    layer = nn.PlainDropout(0.3)
    nnx.manual_seed(5)
    y = layer(x).data
    np.testing.assert_array_equal(y, F.plain_dropout(x, 0.3, generator=np.random.default_rng(5)).data)
    np.testing.assert_array_equal(layer.eval()(x).data, x * np.float32(0.7))
    assert repr(layer) == "PlainDropout(p=0.3)"
    with pytest.raises(ValueError, match=r"PlainDropout: expected p to be a number in \[0, 1\], got -1"):
        nn.PlainDropout(-1)


@pytest.mark.parametrize("units", [(6,), (7,), (3, 2, 2)])
def test_alternating_dropout_trains_each_unit_once_in_a_pair(units):
    nnx.manual_seed(0)
    layer = nn.AlternatingDropout()
    x = np.ones((4, *units), np.float32)
    masks = []
    for _ in range(10):
        first, second = layer(x).data, layer(x).data
        np.testing.assert_array_equal(first + second, x)
        assert (first == first[0]).all(), "the whole batch shares a mask"
        assert first[0].sum() == np.prod(units) // 2
        masks.append(first[0].tobytes())
    assert len(set(masks)) > 1
    np.testing.assert_array_equal(layer.eval()(x).data, x / 2)


def test_alternating_dropout_has_the_gradient_of_its_mask():
    layer = nn.AlternatingDropout()
    x = nnx.Tensor(np.ones((2, 6)), requires_grad=True)
    y = layer(x)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, y.data)


def test_alternating_dropout_begins_anew():
    nnx.manual_seed(0)
    layer = nn.AlternatingDropout()
    layer(np.ones((2, 6)))
    with pytest.raises(
        ValueError, match=r"AlternatingDropout: expected units \(6,\) as in the first call .* got \(5,\)"
    ):
        layer(np.ones((2, 5)))
    layer.reset()
    assert layer(np.ones((2, 5))).shape == (2, 5)
    with pytest.raises(ValueError, match=r"AlternatingDropout: expected input of shape \(N, units\.\.\.\), got shape"):
        layer(np.ones(5))


@pytest.mark.parametrize(
    "layer", [nn.Dropout(0.3), nn.AlphaDropout(0.3), nn.PlainDropout(0.3), nn.AlternatingDropout()]
)
def test_layers_say_whether_they_draw_noise(layer):
    assert layer.draws_noise
    assert not layer.eval().draws_noise


def test_dropout_of_nothing_or_of_all_is_no_noise():
    for p in (0, 1):
        assert not nn.Dropout(p).draws_noise and not nn.PlainDropout(p).draws_noise


def test_a_pair_of_halves_survives_a_checkpoint():
    nnx.manual_seed(0)
    x = np.ones((2, 9))
    layer, other = nn.AlternatingDropout(), nn.AlternatingDropout()
    first = layer(x).data
    other.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(first + other(x).data, x)
    np.testing.assert_array_equal(first + layer(x).data, x)
    assert int(layer.pair) == int(other.pair) == -1


def test_alternating_dropout_is_repeatable_for_gradcheck():
    layer = nn.AlternatingDropout()
    gradcheck(layer, np.random.default_rng(0).standard_normal((2, 5)), module=layer)
