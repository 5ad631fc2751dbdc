"""The gradient's norm, layer by layer."""

from __future__ import annotations

import numpy as np
import pytest

from nnx import nn
from nnx.course.vanishing_gradients import measure


def steps(report):
    """How many times the gradient shrinks from each linear layer's output to the one before."""
    norms = report.norms("Linear")
    return np.divide(norms[1:], norms[:-1])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_F087_a_sigmoid_layer_divides_the_gradient_by_four(seed):
    # The slope is at most 1/4 and the weights keep lengths: never less than 4. Inputs of a sigmoid layer lie in (0, 1)
    # and its pre-activations within about 0.5 of zero, where the slope is above 0.23: never more than 4.4; in the
    # first layer they are normal numbers, and the root mean square of the slope is 0.21.
    ratios = steps(measure(nn.Sigmoid, seed=seed))
    assert (ratios > 4.0 - 1e-6).all() and (ratios[1:] < 4.4).all() and ratios[0] < 5.0
    assert 3.9 < 1 / measure(nn.Sigmoid, seed=seed).factor < 4.6


def test_F087_the_band_fails_for_other_layers():
    for activation, gain in ((nn.Tanh, 1.0), (nn.ReLU, 2**0.5), (nn.Sigmoid, 2.0), (nn.Sigmoid, 0.5)):
        ratios = steps(measure(activation, gain))
        assert not ((ratios > 4.0 - 1e-6).all() and (ratios[1:] < 4.4).all())


def test_F087_large_weights_explode():
    report = measure(nn.Identity, gain=3.0)
    np.testing.assert_allclose(steps(report), 1 / 3, rtol=1e-4)  # float32 sums over 60 units
    assert report.verdict == "exploding" and measure(nn.Sigmoid).verdict == "vanishing"
