"""Dropout layers: on in training mode, off in evaluation mode, in the library's random stream."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
import nnx.functional as F
from nnx import nn

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
