"""Rows of nnx.course.gradient_descent."""

from __future__ import annotations

import math

import numpy as np
import pytest

import nnx
from nnx.course import gradient_descent as topic


@pytest.fixture(scope="module")
def data():
    digits = nnx.data.digits("float64")
    return topic.rows_with_bias(digits.x_train), digits.y_train


def test_F060_best_so_far_is_monotone_and_guessing_is_bad(data):
    w, history = topic.random_search(*data, tries=60, seed=0)
    assert np.all(np.diff(history) <= 0) and history[-1] < history[0]
    assert topic.hinge(w, *data).item() == history[-1]
    assert history[0] == pytest.approx(9, abs=1)  # C - 1 margins of 1
    _, descent = topic.gradient_descent(*data, steps=60, step_size=1e-6, seed=0)
    assert descent[-1] < 0.2 * history[-1]


def test_F063_step_sizes_make_a_u_with_a_linear_tail(data):
    start, sweep = topic.step_sizes(*data, seed=0)
    losses = [sweep[e] for e in range(-10, 0)]
    best = int(np.argmin(losses))
    assert 0 < best < 9
    assert np.all(np.diff(losses[: best + 1]) < 0) and np.all(np.diff(losses[best:]) > 0)
    assert losses[0] == pytest.approx(start, rel=1e-4) and losses[-1] > 10 * start
    slopes = [(sweep[e + 1] - sweep[e]) / (0.9 * 10.0 ** (e + 1)) for e in (-3, -2)]
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-3)


def test_F063_vanilla_descent_is_sgd(data):
    x, y = data[0][:50], data[1][:50]
    ours, _ = topic.gradient_descent(x, y, steps=5, step_size=1e-6, seed=1)
    p = nnx.Parameter(np.random.default_rng(1).standard_normal((10, 65)) * 0.0001)
    optimizer = nnx.optim.SGD([p], lr=1e-6)
    for _ in range(5):
        optimizer.zero_grad()
        topic.hinge(p, nnx.tensor(x), y).backward()
        optimizer.step()
    np.testing.assert_allclose(p.data, ours, rtol=1e-12)


@pytest.mark.parametrize(("samples", "size"), [(1438, 256), (1438, 1), (1438, 1438), (512, 256), (50_000, 256)])
def test_F064_steps_per_epoch(samples, size):
    assert topic.steps_per_epoch(samples, size) == math.ceil(samples / size)


def test_F064_the_trainer_makes_as_many():
    digits = nnx.data.digits()
    model = nnx.nn.Sequential(nnx.nn.Flatten(), nnx.nn.Linear(64, 10))
    trainer = nnx.train.Trainer(model, nnx.nn.CrossEntropyLoss(), nnx.optim.SGD(model.parameters(), lr=0.1))
    trainer.fit(digits.x_train, digits.y_train, epochs=2, batch_size=256, seed=0, verbose=False)
    assert trainer.step == 2 * 6


def test_F065_flat_falling_and_nan_with_the_layer():
    curves = topic.learning_curves({"low": 1e-4, "good": 0.5, "high": 1e9}, epochs=3, seed=0)
    assert curves["low"][0] - curves["low"][-1] < 0.01
    assert curves["good"][-1] < 0.5 * curves["good"][0]
    assert "loss is nan" in curves["high"] and "layer '3' (Linear)" in curves["high"]


def test_F078_saddle_point_and_local_minima():
    stuck = topic.descend(topic.saddle, (1.0, 0.0))[-1]
    np.testing.assert_allclose(stuck, [0, 0], atol=1e-6)
    low, high = topic.curvatures(topic.saddle, stuck)
    assert low == pytest.approx(-2, abs=1e-5) and high == pytest.approx(2, abs=1e-5)
    free = topic.descend(topic.saddle, (1.0, 1e-6))[-1]
    np.testing.assert_allclose(free, [0, math.sqrt(2)], atol=1e-4)  # 200 steps have come so far
    assert min(topic.curvatures(topic.saddle, free)) > 0
    left, right = (topic.descend(topic.valleys, (x, 0.8))[-1] for x in (-0.2, 0.6))
    assert topic.valleys(left) < topic.valleys(right) - 0.1  # two minima, one of them only local
    for end in (left, right):
        assert min(topic.curvatures(topic.valleys, end)) > 0
    rolled = topic.descend(topic.valleys, (1.9, 0.8), lr=0.02, momentum=0.95, steps=600)[-1]
    np.testing.assert_allclose(rolled, left, atol=1e-3)
    plain = topic.descend(topic.valleys, (1.9, 0.8), lr=0.02, steps=600)[-1]
    np.testing.assert_allclose(plain, right, atol=1e-3)
