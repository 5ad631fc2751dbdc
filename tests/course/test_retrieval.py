"""Retrieval by nearest codes."""

from __future__ import annotations

import numpy as np
import pytest

from nnx.course import retrieval


def test_F169_precision_of_the_nearest_code():
    result = retrieval.run()
    assert result["codes"]["p1"] >= 0.97  # 0.992 to 0.997 with the seeds 0 to 4
    assert result["codes"]["p10"] > result["pixels"]["p10"]
    assert result["codes"]["map"] > result["pixels"]["map"] + 0.2


def test_F169_ranking_by_cosine():
    database = np.array([[1.0, 0.0], [0.0, 3.0], [-5.0, 0.1], [2.0, 2.0]])
    assert retrieval.rank([[10.0, 1.0], [0.1, 0.2]], database).tolist() == [[0, 3, 1, 2], [3, 1, 0, 2]]


def test_F169_measures_by_hand():
    relevant = np.array([[True, False, True, False], [False, True, False, False]])
    assert retrieval.precision_at(relevant, 1) == 0.5
    assert retrieval.precision_at(relevant, 2) == 0.5
    assert retrieval.precision_at(relevant, 4) == 3 / 8
    assert retrieval.mean_average_precision(relevant) == ((1 + 2 / 3) / 2 + 1 / 2) / 2


def test_F169_average_precision_equals_scikit_learn():
    average_precision = pytest.importorskip("sklearn.metrics").average_precision_score
    relevant = np.random.default_rng(0).random((5, 20)) < 0.3
    expected = np.mean([average_precision(row, -np.arange(20)) for row in relevant])
    np.testing.assert_allclose(retrieval.mean_average_precision(relevant), expected, rtol=1e-12)
