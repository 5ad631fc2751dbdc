"""Rows of nnx.course.optimizers. The golden values come from three steps of the slides' formulas, eps = 1e-7."""

from __future__ import annotations

import math

import numpy as np
import pytest

import nnx
from nnx.course import optimizers as topic

# printed with 12 digits
GOLDEN = {
    "SGD": (0.729, 0.970299),
    "momentum": (0.486, 0.944379),
    "Nesterov, rewrite": (0.327321, 0.920893941),
    "AdaGrad": (0.780456183089, 0.780456198761),
    "RMSProp": (0.369180567428, 0.36918069588),
    "Adam": (0.701586274504, 0.701586302555),
    "Adam, not corrected": (-0.1621412074, -0.162138762622),
}


def golden(name):
    for way in (topic.by_rule(name, 3), topic.by_library(name, 3)):
        np.testing.assert_allclose(way[-1], GOLDEN[name], rtol=0, atol=6e-13)


def torch_way(make, steps=20, **options):
    torch = pytest.importorskip("torch")
    p = torch.nn.Parameter(torch.tensor(topic.START, dtype=torch.float64))
    optimizer = getattr(torch.optim, make)([p], **options)
    way = [p.detach().numpy().copy()]
    for _ in range(steps):
        optimizer.zero_grad()
        topic.bowl(p).backward()
        optimizer.step()
        way.append(p.detach().numpy().copy())
    return np.array(way)


def same_as_torch(name, make, **options):
    # twenty steps, each rounded in both libraries
    np.testing.assert_allclose(topic.by_library(name, 20), torch_way(make, **options), rtol=1e-12, atol=1e-14)


def test_F066_momentum_golden_values():
    golden("SGD")
    golden("momentum")


def test_F066_momentum_equals_pytorch():
    same_as_torch("momentum", "SGD", lr=0.01, momentum=0.9)


def test_F067_both_forms_of_nesterov_are_one_trajectory():
    golden("Nesterov, rewrite")
    lr, mu = 0.01, 0.9
    for way in (topic.by_rule, topic.by_library):
        ahead, rewritten = way("Nesterov, look-ahead", 30), way("Nesterov, rewrite", 30)
        velocity = np.diff(ahead, axis=0)
        # phi = theta + mu v, point for point
        np.testing.assert_allclose(rewritten[1:], ahead[1:] + mu * velocity, rtol=1e-10, atol=1e-14)
    plain = topic.by_rule("momentum", 30, lr=lr)
    assert np.abs(plain - ahead).max() > 0.01


def test_F067_nesterov_equals_pytorch():
    same_as_torch("Nesterov, rewrite", "SGD", lr=0.01, momentum=0.9, nesterov=True)


def test_F068_adagrad_golden_values_and_its_steps_die_out():
    golden("AdaGrad")
    x = nnx.Parameter(np.zeros(1))
    optimizer = nnx.optim.Adagrad([x], lr=0.1, eps=0)
    for t in range(1, 401):
        before = x.data.copy()
        x.grad = np.array([3.0])
        optimizer.step()
        assert before - x.data == pytest.approx(0.1 / math.sqrt(t), rel=1e-10)
    assert 0.1 / math.sqrt(400) == 0.005


def test_F069_adadelta_is_the_formula_and_forgets():
    ours = topic.by_library("Adadelta", 20)
    np.testing.assert_allclose(ours, topic.by_rule("Adadelta", 20), rtol=1e-12)
    steps = np.abs(np.diff(ours, axis=0))
    assert (steps[1:] > steps[:-1]).all()  # the second average grows: nothing dies out as in AdaGrad


def test_F069_adadelta_equals_pytorch():
    ours = topic.by_library("Adadelta", 20)
    np.testing.assert_allclose(ours, torch_way("Adadelta", lr=1.0, rho=0.9, eps=1e-6), rtol=1e-6)


def test_F070_rmsprop_golden_values():
    golden("RMSProp")


def test_F070_rmsprop_equals_pytorch():
    same_as_torch("RMSProp", "RMSprop", lr=0.1, alpha=0.9, eps=1e-7)


def test_F071_adam_with_and_without_bias_correction():
    golden("Adam")
    golden("Adam, not corrected")
    first = {name: 1 - topic.by_library(name, 1)[1] for name in ("Adam", "Adam, not corrected")}
    np.testing.assert_allclose(first["Adam"], 0.1, rtol=1e-6)  # eps = 1e-7 beside a gradient of 1
    np.testing.assert_allclose(first["Adam, not corrected"], 0.1 * 0.1 / math.sqrt(0.001), rtol=1e-5)


def test_F071_X21_adam_is_rmsprop_with_momentum_and_correction():
    """Without momentum and with the corrections undone, Adam is RMSProp: Adadelta plays no part."""
    adam = topic.adam(np.array(topic.START), topic.bowl_gradient, 0.1, beta1=0, beta2=0.9, corrected=False)
    rmsprop = topic.rmsprop(np.array(topic.START), topic.bowl_gradient, 0.1, decay_rate=0.9)
    for _ in range(10):
        np.testing.assert_array_equal(next(adam), next(rmsprop))


def test_F071_adam_equals_pytorch():
    same_as_torch("Adam", "Adam", lr=0.1, eps=1e-7)


def test_F072_decaying_learning_rates():
    rates = topic.schedules(lr=0.1, k=0.1, steps=10)
    assert rates["exponential"][10] == pytest.approx(0.1 * math.exp(-1), rel=1e-12)
    assert round(rates["exponential"][10], 4) == 0.0368
    assert rates["1/t"][10] == pytest.approx(0.05, rel=1e-12)
    assert rates["step"] == pytest.approx([0.1] * 5 + [0.05] * 5 + [0.025], rel=1e-12)


def test_F077_ways_over_the_long_bowl():
    start = (-1.0, 4.0)
    ways = {
        name: topic.by_library(name, 100, topic.long_bowl, start, lr=lr)
        for name, lr in {"SGD": 0.019, "momentum": 0.01, "Nesterov, rewrite": 0.01, "Adam": 0.3}.items()
    }
    across = {name: int(np.sum(np.diff(np.sign(way[:, 0])) != 0)) for name, way in ways.items()}
    assert across["SGD"] > 90  # a zigzag: nearly every step crosses the valley
    height = {name: topic.long_bowl(way[-1]) for name, way in ways.items()}
    assert height["momentum"] < height["SGD"] / 10 and height["Nesterov, rewrite"] < height["SGD"] / 10
    step = np.abs(ways["Adam"][1] - ways["Adam"][0])
    assert step[0] == pytest.approx(step[1], rel=1e-6)  # 45 degrees: equally long in both weights
