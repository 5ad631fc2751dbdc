"""The experiment with ten layers of 500 units; its bands are in tests/course/test_activation_statistics.py."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx import diagnose


def test_a_stack_has_the_scale_that_was_asked_for():
    rng = np.random.default_rng(0)
    for scale, std in ((0.01, 0.01), ("xavier", 200**-0.5), ("he", 0.1)):
        model = diagnose.plain_stack("relu", scale, layers=2, units=200, rng=rng)
        weights = np.concatenate([p.data.ravel() for p in model.parameters()])
        # 80,000 draws: the standard deviation is known to 1 / sqrt(160,000) = 0.25 %
        assert abs(weights.std() / std - 1) < 0.01
    assert [name for name, _ in model.named_children()] == ["linear 1", "layer 1", "linear 2", "layer 2"]


def test_the_seed_decides():
    first = diagnose.initialisation_experiment(layers=2, units=50, examples=20, seed=3).stds
    assert first == diagnose.initialisation_experiment(layers=2, units=50, examples=20, seed=3).stds
    assert first != diagnose.initialisation_experiment(layers=2, units=50, examples=20, seed=4).stds


def test_five_tables():
    tables = diagnose.initialisation_tables(layers=2, units=30, examples=10)
    assert list(tables) == ["tanh, 0.01", "tanh, 1.0", "tanh, Xavier", "ReLU, Xavier", "ReLU, He"]
    assert all([a.kind for a in t.layers] == [name[:4]] * 2 for name, t in tables.items() if name[:4] == "ReLU")


def test_errors():
    with pytest.raises(ValueError, match="plain_stack: expected scale to be one of 'xavier', 'he', got 'glorot'"):
        diagnose.initialisation_experiment(scale="glorot")
    with pytest.raises(ValueError, match="plain_stack: expected activation to be one of 'tanh', 'relu', 'sigmoid'"):
        diagnose.initialisation_experiment("softmax")
    with pytest.raises(ValueError, match="expected examples to be an integer >= 1, got 0"):
        diagnose.initialisation_experiment(examples=0)
    with pytest.raises(TypeError, match="expected a numpy.random.Generator"):
        diagnose.plain_stack(rng=nnx)
