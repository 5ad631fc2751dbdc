"""Threshold units, gates, Hebb's rule, perceptrons and the Mark I: what the course tests leave."""

from __future__ import annotations

import numpy as np
import pytest

from nnx.classic import Hebb, MarkOne, McCullochPittsUnit, Perceptron, ThresholdUnit, gates, perceptron_learning, step


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: step([0.0], 2), ValueError, "step: expected at_zero to be one of 0, 1, got 2"),
        (lambda: ThresholdUnit([[1]]), ValueError, r"expected weights of shape \(d,\), got shape \(1, 1\)"),
        (lambda: ThresholdUnit([1], 1, 1), ValueError, "ThresholdUnit: expected a threshold or a bias, .* got both"),
        (lambda: ThresholdUnit([1], "a"), TypeError, "ThresholdUnit: expected threshold to be a number"),
        (lambda: ThresholdUnit([1, 2])([1.0]), ValueError, r"ThresholdUnit: expected x of shape \(..., 2\)"),
        (lambda: McCullochPittsUnit(-1), ValueError, "McCullochPittsUnit: expected threshold to be an integer >= 0"),
        (lambda: McCullochPittsUnit(1)([2, 0]), ValueError, "McCullochPittsUnit: expected x of zeros and ones"),
        (lambda: McCullochPittsUnit(1, [5])([1, 0]), ValueError, r"expected x of shape \(..., d\) with inputs \(5,\)"),
        (lambda: gates.xor([0, 2], 1), ValueError, r"gates: expected zeros and ones, got \[0, 2\]"),
        (lambda: Hebb().fit([[1, 1]], [1]), ValueError, r"Hebb: expected y of shape \(1, outputs\), got shape \(1,\)"),
        (
            lambda: Hebb().fit([[1, 1]], [[1]]).partial_fit([[1]], [[1]]),
            ValueError,
            r"Hebb: expected patterns of \(2, 1\) numbers, got \(1, 1\)",
        ),
        (lambda: perceptron_learning([[1]], [0]), ValueError, "perceptron_learning: expected y .* with -1 and 1 only"),
        (lambda: perceptron_learning([[1]], [1], [1, 2]), ValueError, r"expected w0 of shape \(1,\), got shape \(2,\)"),
        (lambda: perceptron_learning([[1]], [1], update=">"), ValueError, "expected update to be one of .* got '>'"),
        (lambda: perceptron_learning([[1]], [1], max_passes=0), ValueError, "expected max_passes to be an integer"),
        (lambda: Perceptron(0).fit([[1], [2]], [0, 1]), ValueError, "Perceptron: expected max_iter to be an integer"),
        (
            lambda: Perceptron(update="=").fit([[1], [2]], [0, 1]),
            ValueError,
            "Perceptron: expected update to be one of '<=', '<', got '='",
        ),
        (
            lambda: MarkOne(2, 4, connections=5).fit(np.ones((2, 2, 2)), [0, 1]),
            ValueError,
            "MarkOne: expected connections to be at most 4, the cells, got 5",
        ),
        (
            lambda: MarkOne(2, 4, connections=2).fit(np.full((2, 2, 2), 0.5), [0, 1]),
            ValueError,
            "MarkOne: expected x of zeros and ones, got other values. Compare pixels with a threshold",
        ),
    ],
)  # fmt: skip
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_gates_broadcast():
    table = gates.and_(np.array([[0], [1]]), np.array([0, 1, 1]))
    assert table.tolist() == [[0, 0, 0], [0, 1, 1]]
    assert gates.nand(True, False) == 1


def test_perceptron_order_of_the_samples(rng):
    x = rng.standard_normal((80, 3))
    y = (x.sum(axis=1) > 0).astype(int)
    plain = Perceptron().fit(x, y)
    first, second = (Perceptron(shuffle=True, random_state=s).fit(x, y) for s in (1, 2))
    assert plain.converged_ and first.converged_ and second.converged_
    assert not (first.coef_ == second.coef_).all()
    np.testing.assert_array_equal(first.coef_, Perceptron(shuffle=True, random_state=1).fit(x, y).coef_)


def test_perceptron_of_several_classes_has_a_unit_for_each(rng):
    x = np.concatenate([rng.standard_normal((20, 2)) + c for c in ((9, 9), (-9, 9), (0, -9))])
    y = np.repeat(["a", "b", "c"], 20)
    model = Perceptron().fit(x, y)
    assert model.coef_.shape == (3, 2) and model.intercept_.shape == (3,)
    assert model.decision_function(x).shape == (60, 3)
    assert model.score(x, y) == 1


def test_mark_one_fails_without_its_association_units():
    """Patterns that differ in pairs of cells only: no single layer tells them apart, the association units do."""
    x = np.array([[[0, 0], [0, 0]], [[1, 1], [0, 0]], [[1, 0], [0, 0]], [[0, 1], [0, 0]]])
    y = [0, 0, 1, 1]
    assert Perceptron(100).fit(x, y).score(x, y) < 1
    assert MarkOne(2, 64, connections=3, threshold=1).fit(x, y).score(x, y) == 1
