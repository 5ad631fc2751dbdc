"""Rows of nnx.course.universal_approximation."""

from __future__ import annotations

import numpy as np
import pytest

from nnx.course import universal_approximation as topic


@pytest.mark.parametrize("seed", range(3))
def test_F054_one_hidden_layer_follows_the_sine(seed):
    model = topic.train(np.sin, 10, -np.pi, np.pi, seed)
    assert len([layer for layer in model if hasattr(layer, "weight")]) == 2
    assert topic.largest_error(model, np.sin, -np.pi, np.pi) < 0.01


@pytest.mark.parametrize("f", [np.sin, np.exp, np.abs], ids=["sin", "exp", "abs"])
def test_F054_a_staircase_comes_as_close_as_wanted(f):
    errors = [topic.largest_error(topic.staircase(f, n, -2, 2), f, -2, 2) for n in (10, 100, 1000)]
    steepest = np.abs(np.diff(f(np.linspace(-2, 2, 4001)))).max() / 0.001
    for n, error in zip((10, 100, 1000), errors, strict=True):
        assert error <= 1.01 * steepest * (4 / n) / 2 + 1e-9  # half a step away from the middle of an interval
    assert errors[2] < 0.02


def test_F054_one_unit_is_not_enough():
    assert topic.largest_error(topic.train(np.sin, 1, -np.pi, np.pi, 0), np.sin, -np.pi, np.pi) > 0.1
