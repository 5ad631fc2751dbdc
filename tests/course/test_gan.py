"""A GAN on eight clouds in a ring."""

from __future__ import annotations

import numpy as np

import nnx
from nnx.course import gan


def test_F174_most_modes_are_covered():
    generator, snapshots = gan.play(seed=0, steps=2000, blur=0.5)
    parts, good = gan.coverage(generator.predict(gan.noise(4000, np.random.default_rng(1))))
    assert np.sum(parts >= 0.02) >= 6  # 8 with the seeds 0 to 4
    assert good >= 0.5
    assert [s.shape for s in snapshots] == [(1000, 2)] * 4


def test_F174_real_points_cover_everything():
    rng = np.random.default_rng(0)
    parts, good = gan.coverage(gan.ring(8000, rng))
    # within three standard deviations lie 1 - exp(-9/2) = 98.9 % of a normal cloud in the plane
    assert abs(good - 0.98889) < 0.005
    np.testing.assert_allclose(parts, good / 8, atol=0.015)


def test_F174_a_collapsed_generator_is_noticed():
    parts, good = gan.coverage(np.tile(gan.CENTRES[3], (100, 1)))
    assert np.sum(parts >= 0.02) == 1 and good == 1
    parts, good = gan.coverage(np.zeros((100, 2)))
    assert parts.sum() == 0 and good == 0


def test_F174_an_untrained_generator_covers_less():
    nnx.manual_seed(0)
    points = gan.network(gan.NOISE, 2).predict(gan.noise(4000, np.random.default_rng(0)))
    assert gan.coverage(points)[1] < 0.1
