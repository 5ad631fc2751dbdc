"""Rows of nnx.course.perceptron."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx.classic import MarkOne, Perceptron, ThresholdUnit, perceptron_learning
from nnx.course import perceptron as topic


def test_F003_ties():
    assert ThresholdUnit([1, 1], threshold=2)([1, 1]) == 1  # S1: fires at sum >= threshold
    assert ThresholdUnit([1, 1], threshold=2, at_zero=0)([1, 1]) == 0  # S3: only above it
    assert Perceptron(at_zero=1).fit([[0.0], [1.0]], [0, 1]).predict([[5.0]]) == 1


def test_F003_threshold_and_bias_are_one(rng):
    x = rng.integers(-3, 4, (200, 3))
    w = [1, -2, 1]
    for tie in (0, 1):
        by_threshold, by_bias = ThresholdUnit(w, threshold=1, at_zero=tie), ThresholdUnit(w, bias=-1, at_zero=tie)
        assert (by_threshold(x) == by_bias(x)).all()
        assert by_threshold.threshold == 1 and by_threshold.bias == -1
    sums = (x * w).sum(axis=1)
    assert (by_threshold(x) == (sums >= 1)).all()
    assert (sums == 1).any()


def test_F003_a_perceptron_decides_ties_as_told():
    x, y = [[1.0, 0.0], [-1.0, 0.0]], [1, 0]
    for tie in (0, 1):
        model = Perceptron(at_zero=tie, fit_intercept=False).fit(x, y)
        assert model.predict([[0.0, 1.0]]).item() == tie  # the sum is 0


def test_F004_mark_one_has_the_machines_sizes_and_learns():
    digits = nnx.data.digits()
    few = digits.y_train < 8
    x, y = topic.retina(digits.x_train[few]), digits.y_train[few]
    machine = MarkOne(max_iter=10).fit(x[:800], y[:800])
    assert x.shape[1:] == (20, 20)
    assert machine.wiring_.shape == (512, 400)
    assert machine.response_.coef_.shape == (8, 512)
    assert set(np.unique(machine.wiring_)) == {-1, 0, 1}
    before = machine.wiring_.copy()
    machine.fit(x[:100], y[:100])
    assert (machine.wiring_ == before).all()  # random, and never trained
    assert MarkOne(max_iter=10).fit(x[:800], y[:800]).score(x[800:], y[800:]) > 0.85
    with pytest.raises(ValueError, match="MarkOne: expected at most 8 classes, as responses, got 10"):
        MarkOne().fit(topic.retina(digits.x_train), digits.y_train)


@pytest.mark.parametrize("margin", [0.4, 0.1, 0.03])
@pytest.mark.parametrize("seed", range(5))
def test_F006_updates_stay_below_the_bound(margin, seed):
    x, y = topic.separable(100, margin, seed)
    learned = perceptron_learning(x, y, max_passes=100_000)
    assert learned.converged
    assert (y * (x * learned.weights).sum(axis=1) > 0).all()
    assert 0 < learned.updates <= topic.bound(x, margin)


def test_F006_is_the_rule_sample_by_sample(rng):
    x = np.hstack([rng.standard_normal((150, 2)), np.ones((150, 1))])
    y = np.where(x[:, 0] + 0.5 * x[:, 1] > 0.1, 1, -1)
    w, updates, passes, before = np.zeros(3), 0, 0, -1
    while updates > before:
        before, passes = updates, passes + 1
        for a, b in zip(x, y, strict=True):
            if b * (w * a).sum() <= 0:
                w, updates = w + b * a, updates + 1
    learned = perceptron_learning(x, y)
    np.testing.assert_array_equal(learned.weights, w)
    assert (learned.updates, learned.passes) == (updates, passes)


def test_F006_updating_only_for_negative_margins_stops_at_a_non_solution():
    """X14: S1 prints y w x < 0."""
    strict = perceptron_learning([[1.0, 0.0]], [1], [0.0, 1.0], update="<")
    assert strict.converged and strict.updates == 0 and strict.weights.tolist() == [0, 1]
    proper = perceptron_learning([[1.0, 0.0]], [1], [0.0, 1.0])
    assert proper.weights.tolist() == [1, 1]
    assert topic.strict_rule_fails() == ([0, 1], [1, 1])


def test_F006_the_sign_of_the_decision():
    """X13: S1's classifier gives -1 for w x > 0; its own condition w x y > 0 wants +1."""
    x, y = topic.separable(50, 0.2)
    model = Perceptron(fit_intercept=False).fit(x, y)
    sums = model.decision_function(x)
    assert (model.predict(x)[sums > 0] == 1).all()
    assert (sums * y > 0).all()


def test_F006_without_a_separating_line_it_goes_on_to_the_end():
    learned = perceptron_learning([[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]], [-1, 1, 1, -1], max_passes=50)
    assert not learned.converged and learned.passes == 50


def test_F006_against_sklearn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = topic.separable(300, 0.05)
    theirs = linear_model.Perceptron(max_iter=1000, tol=None, shuffle=False).fit(x[:, :2], y)
    ours = Perceptron().fit(x[:, :2], y)
    assert ours.score(x[:, :2], y) == theirs.score(x[:, :2], y) == 1
    digits = nnx.data.digits()
    train, test = (a.reshape(len(a), -1) for a in (digits.x_train, digits.x_test))
    theirs = linear_model.Perceptron(max_iter=20, tol=None, shuffle=False).fit(train, digits.y_train)
    ours = Perceptron(20).fit(train, digits.y_train)
    assert abs(ours.score(test, digits.y_test) - theirs.score(test, digits.y_test)) < 0.02
