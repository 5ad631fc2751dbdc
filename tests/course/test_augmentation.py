"""Flips, rotations, scaling and noise."""

from __future__ import annotations

import numpy as np
import pytest

from nnx.course import augmentation
from nnx.data import GaussianNoise, RandomHorizontalFlip, RandomRotation, RandomScale

RNG = np.random.default_rng(0)
BATCH = RNG.standard_normal((5, 3, 8, 8))


def test_F137_a_flip_twice_is_nothing():
    flip = RandomHorizontalFlip(1.0)
    once = flip(BATCH, RNG)
    np.testing.assert_array_equal(once, BATCH[..., ::-1])
    np.testing.assert_array_equal(flip(once, RNG), BATCH)


@pytest.mark.parametrize("turns", [-1, 1, 2])
def test_F137_quarter_turns_are_exact(turns):
    turned = RandomRotation((90 * turns, 90 * turns))(BATCH, RNG)
    # cos(90 degrees) is 6e-17 and not 0: neighbours come in with that weight
    np.testing.assert_allclose(turned, np.rot90(BATCH, turns, axes=(2, 3)), atol=1e-12)


def test_F137_scaling_by_one_is_nothing_and_by_two_enlarges():
    np.testing.assert_allclose(RandomScale((1, 1))(BATCH, RNG), BATCH, atol=1e-12)
    dot = np.zeros((1, 1, 9, 9))
    dot[0, 0, 3:6, 3:6] = 1
    assert RandomScale((2, 2))(dot, RNG).sum() == pytest.approx(4 * dot.sum(), rel=0.1)


def test_F137_noise_is_white():
    noise = GaussianNoise(0.1)(np.zeros((10, 1, 100, 100)), RNG)
    # 100,000 numbers: four standard errors of mean and deviation
    assert abs(noise.mean()) < 4 * 0.1 / np.sqrt(noise.size)
    assert noise.std() == pytest.approx(0.1, rel=4 / np.sqrt(2 * noise.size))
    neighbours = (noise[..., 1:] * noise[..., :-1]).mean() / 0.01
    assert abs(neighbours) < 4 / np.sqrt(noise.size)


@pytest.mark.parametrize("name", list(augmentation.CHANGES))
def test_F137_the_same_seed_gives_the_same_images(name):
    change = augmentation.CHANGES[name]
    first = change(BATCH, np.random.default_rng(3))
    np.testing.assert_array_equal(first, change(BATCH, np.random.default_rng(3)))
    if name not in ("as it is", "mirrored"):
        assert (first != change(BATCH, np.random.default_rng(4))).any()
