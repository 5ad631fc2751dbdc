"""The loss at the start, the penalty in both conventions, and twenty examples by heart."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnx import diagnose, nn
from nnx.course._pixels import pixels, two_layers
from nnx.course.sanity_checks import BrokenReLU, LostReLU, overfit, penalty_check
from nnx.train.classifier import init_two_layer_model, two_layer_net


@pytest.mark.parametrize("seed", range(5))
def test_F120_the_loss_at_the_start_is_ln_10(seed):
    x, y = pixels(200, seed)
    report = diagnose.initial_loss(two_layers(seed), nn.CrossEntropyLoss(), x, y, tolerance=1e-3)
    assert report.expected == math.log(10) and report.passed
    model = init_two_layer_model(32 * 32 * 3, 50, 10, rng=np.random.default_rng(seed))
    assert abs(two_layer_net(x, y, model, 0.0)[0] - math.log(10)) < 1e-3


def test_F120_the_check_fails_on_a_wrong_scale():
    x, y = pixels(200)
    for std in (1e-2, 1e-1):
        assert not diagnose.initial_loss(two_layers(0, std), nn.CrossEntropyLoss(), x, y, tolerance=1e-3).passed


def in_band(loss, mean, deviation):
    """Within four standard deviations of the draw of the weights."""
    return abs(loss - mean) < 4 * deviation


@pytest.mark.parametrize("seed", range(5))
def test_F120_the_penalty_raises_it_by_the_half_convention(seed):
    half, full = penalty_check(seed=seed), penalty_check(l2_half=False, seed=seed)
    assert half.passed and half.convention == "0.5 strength sum(W^2)" and in_band(half.losses[-1], 3.0731, 0.0028)
    assert full.passed and full.convention == "strength sum(W^2)" and in_band(full.losses[-1], 3.8436, 0.0056)


def test_F120_X3_the_printed_value_needs_the_half():
    assert in_band(3.06859716482, 3.0731, 0.0028) and not in_band(3.06859716482, 3.8436, 0.0056)
    # the prediction: 154,100 weights of variance 1e-8; their sum of squares scatters by sqrt(2 / 154100)
    count = 3072 * 50 + 50 * 10
    assert math.log(10) + 0.5 * 1e3 * count * 1e-8 == pytest.approx(3.0731, abs=5e-5)
    assert 0.5 * 1e3 * count * 1e-8 * math.sqrt(2 / count) == pytest.approx(0.0028, abs=5e-5)


def test_F120_the_band_fails_on_a_wrong_scale():
    x, y = pixels(50)
    for std in (0.97e-4, 1.03e-4):
        model = init_two_layer_model(3072, 50, 10, std, np.random.default_rng(0))
        assert not in_band(two_layer_net(x, y, model, 1e3)[0], 3.0731, 0.0028)


@pytest.mark.parametrize("seed", range(3))
def test_F121_twenty_examples_are_learnt_by_heart(seed):
    report = overfit(seed=seed)
    assert report.passed and report.examples == 20 and len(report.losses) == 201
    assert report.losses[-1] < 0.01 and report.accuracies[-1] == 1.0
    assert abs(report.losses[0] - math.log(10)) < 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_F121_fails_on_a_broken_backward(seed):
    wrong = overfit(BrokenReLU(), seed=seed)
    assert not wrong.passed and wrong.losses[-1] > 1
    lost = overfit(LostReLU(), seed=seed)
    assert not lost.passed and lost.still == ["first.weight", "first.bias"]
