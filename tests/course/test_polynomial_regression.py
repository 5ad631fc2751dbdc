"""Rows of nnx.course.polynomial_regression."""

from __future__ import annotations

import numpy as np
import pytest

from nnx.classic import PolynomialRegression
from nnx.course import polynomial_regression as topic


@pytest.fixture(scope="module")
def medians():
    return {d: np.median([topic.errors(d, seed) for seed in range(20)], axis=0) for d in (1, 3, 14)}


def test_F053_degree_14_is_worse_than_degree_3_on_fresh_points(medians):
    assert medians[14][1] > 2 * medians[3][1]
    assert medians[1][1] > 1.5 * medians[3][1]


def test_F053_and_better_on_the_points_it_has_seen(medians):
    assert medians[14][0] < 1e-8  # 15 coefficients, 15 points
    assert medians[14][0] < medians[3][0] < medians[1][0]


def test_F053_a_penalty_tames_degree_14():
    plain, tamed = (np.median([topic.errors(14, seed, alpha)[1] for seed in range(20)]) for alpha in (0.0, 0.01))
    assert tamed < plain / 2


def test_F053_an_exact_polynomial_is_found(rng):
    x = rng.uniform(-1, 1, 30)
    model = PolynomialRegression(3).fit(x, topic.curve(x))
    np.testing.assert_allclose(model.coef_, [0.5, -1, -1, 2], rtol=0, atol=1e-10)
    assert model.score(x, topic.curve(x)) == pytest.approx(1, abs=1e-12)
