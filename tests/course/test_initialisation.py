"""Zero weights, the moments of the initialisers, sums of normal numbers."""

from __future__ import annotations

import numpy as np
import pytest

from nnx.course import initialisation
from nnx.nn import init


def test_F113_units_that_start_alike_stay_alike():
    weight, losses = initialisation.train_two_layers(zero=True, steps=10)
    # BLAS may round the columns of a product differently
    np.testing.assert_allclose(weight, np.broadcast_to(weight[0], weight.shape), rtol=1e-12)
    assert np.abs(weight).max() > 1e-3, "they do move, but together"
    different, better = initialisation.train_two_layers(zero=False, steps=10)
    assert np.abs(different - different[0]).max() > 0.1 and better[-1] < losses[-1]


# 200,000 draws: the standard error of a standard deviation is sigma / sqrt(2 n) = 0.0016 sigma; the band is 4 of them
@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("0.01 randn", 0.01),
        ("1.0 randn", 1.0),
        ("Xavier, 1/sqrt(fan_in)", 500**-0.5),
        ("Glorot", (2 / 900) ** 0.5),
        ("He", (2 / 500) ** 0.5),
        ("truncated at 2 sigma", 0.8796),
    ],
)
def test_F114_moments_of_the_initialisers(name, std):
    w = initialisation.draws()[name]
    assert w.size == 200_000
    assert w.std() == pytest.approx(std, rel=0.0064)
    assert abs(w.mean()) < 4 * std / np.sqrt(w.size)


def test_F114_truncated_normal_has_no_tails():
    w = initialisation.draws()["truncated at 2 sigma"]
    assert np.abs(w).max() <= 2 and np.abs(w).max() > 1.99


def test_F114_truncated_deviation_is_the_exact_one():
    scipy_stats = pytest.importorskip("scipy.stats")
    assert scipy_stats.truncnorm(-2, 2).std() == pytest.approx(0.8796, abs=5e-5)


def test_F116_sum_of_200_normals():
    assert 200**0.5 == pytest.approx(14.1421, abs=5e-5)  # N18
    # 100,000 samples: the standard error is 0.22 %; the row asks for 1 %
    assert initialisation.sum_of_normals(200, 100_000) == pytest.approx(200**0.5, rel=0.01)
    assert 1 / 200 == 2 / (200 + 200) == 0.005
    w = init.xavier_normal_(np.empty((200, 200)), generator=np.random.default_rng(0))
    assert w.var() == pytest.approx(0.005, rel=4 * np.sqrt(2 / w.size))
