"""Rows of nnx.course.evaluation."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx import diagnose
from nnx.classic import KNeighborsClassifier
from nnx.course import evaluation as topic
from nnx.data import k_fold, split_indices


def test_F028_proportions():
    assert topic.part_sizes(1000) == {"usual": [800, 100, 100], "deep": [990, 5, 5]}
    assert topic.part_sizes(100_000)["deep"] == [99_000, 500, 500]


def test_F028_parts_are_stratified_seeded_and_disjoint():
    y = np.repeat([0, 1, 2], [500, 300, 200])
    parts = split_indices(1000, (0.8, 0.1, 0.1), stratify=y, seed=4)
    assert [np.bincount(y[part]).tolist() for part in parts] == [[400, 240, 160], [50, 30, 20], [50, 30, 20]]
    assert sorted(np.concatenate(parts)) == list(range(1000))
    again, other = (split_indices(1000, (0.8, 0.1, 0.1), stratify=y, seed=s) for s in (4, 5))
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))
    assert not (parts[1] == other[1]).all()


@pytest.mark.parametrize(("n", "k"), [(10, 5), (103, 5), (7, 3), (20, 20)])
def test_F029_folds_against_sklearn(n, k):
    theirs = pytest.importorskip("sklearn.model_selection").KFold(k).split(np.zeros(n))
    for (train, held), (a, b) in zip(k_fold(n, k), theirs, strict=True):
        np.testing.assert_array_equal(train, a)
        np.testing.assert_array_equal(held, b)


def test_F029_each_score_is_that_of_a_model_that_never_saw_the_fold():
    data = nnx.data.digits()
    x, y = data.x_train[:300], data.y_train[:300]
    scores = topic.cross_validate(x, y, [1, 5], folds=3, seed=2)
    for i, (train, held) in enumerate(k_fold(300, 3, stratify=y, shuffle=True, seed=2)):
        assert not set(train) & set(held)
        for k in (1, 5):
            assert scores[k][i] == KNeighborsClassifier(k).fit(x[train], y[train]).score(x[held], y[held])


def test_F030_the_report_tells_the_two_failures_apart():
    over, under = topic.train(300, 60, 40, seed=0), topic.train(1, 1000, 40, seed=0)
    assert diagnose.fit_report(over, wanted=0.9).verdict == "overfitting"
    assert diagnose.fit_report(under, wanted=0.9).verdict == "underfitting"
    assert over["accuracy"][-1] == 1 and over["accuracy"][-1] - over["val_accuracy"][-1] > 0.1
    assert under["accuracy"][-1] < 0.6 and abs(under["accuracy"][-1] - under["val_accuracy"][-1]) < 0.1
