"""Rows of nnx.course.hidden_layers."""

from __future__ import annotations

import numpy as np
import pytest

import nnx.functional as F
from nnx import nn
from nnx.classic import Perceptron, SoftmaxClassifier
from nnx.course import hidden_layers as topic


def test_F007_no_linear_model_passes_75_percent():
    assert topic.best_line() == 0.75
    assert Perceptron(200).fit(topic.X, topic.XOR).score(topic.X, topic.XOR) <= 0.75
    assert SoftmaxClassifier(0.1, epochs=100).fit(topic.X, topic.XOR).score(topic.X, topic.XOR) <= 0.75
    for hidden in ((), (8,), (8, 8)):
        assert topic.train(hidden, None, 200, seed=0)[1] <= 0.75


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
@pytest.mark.parametrize("seed", range(3))
def test_F007_a_hidden_layer_learns_xor(activation, seed):
    assert topic.train((8,), activation, 400, seed)[1] == 1


@pytest.mark.parametrize("depth", [1, 2, 3, 6])
def test_F008_linear_layers_collapse(depth):
    assert topic.collapse_error(depth) < 1e-12


def test_F008_layers_with_a_bend_do_not_collapse(rng):
    layers = [nn.Linear(8, 8, dtype=np.float64) for _ in range(2)]
    x = rng.standard_normal((50, 8))
    weight, bias = topic.collapse(layers)
    bent = nn.Sequential(layers[0], nn.ReLU(), layers[1])(x).data
    assert np.abs(bent - F.linear(x, weight, bias).data).max() > 0.01
