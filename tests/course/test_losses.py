"""Rows of nnx.course.losses."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
import nnx.functional as F
from nnx.course import losses as topic
from nnx.course.linear_classifiers import LABELS, SCORES


def test_F042_the_lectures_hinge_losses():
    values = topic.hinge(SCORES, LABELS)
    np.testing.assert_allclose(values, [2.9, 0, 12.9], rtol=0, atol=1e-12)
    assert values.mean() == pytest.approx(5.26667, abs=1e-5)
    assert F.multiclass_hinge_loss(SCORES, LABELS).item() == pytest.approx(5.26667, abs=1e-5)


def test_F042_the_true_class_does_not_leak_in():
    """All wrong scores negative: Keras's categorical_hinge gives 2 here."""
    assert topic.hinge(np.array([[-1.0, -5.0, -5.0]]), [0]).item() == 0


def test_F042_against_torch(rng):
    torch = pytest.importorskip("torch")
    scores, labels = rng.standard_normal((50, 7)), rng.integers(0, 7, 50)
    for p in (1, 2):
        theirs = torch.nn.MultiMarginLoss(p=p, reduction="none")(torch.tensor(scores), torch.tensor(labels)) * 7
        np.testing.assert_allclose(topic.hinge(scores, labels, p), theirs.numpy(), rtol=1e-12, atol=1e-12)


def test_F043_all_variants_of_the_quiz():
    variants = topic.quiz(SCORES, LABELS)
    expected = {
        "wrong classes only": [2.9, 0, 12.9],
        "right class included": [3.9, 1, 13.9],
        "mean instead of sum": [1.45, 0, 6.45],
        "squared": [8.41, 0, 83.25],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(variants[name], values, rtol=0, atol=1e-12)
    assert variants["right class included"].mean() == pytest.approx(6.26667, abs=1e-5)
    assert variants["squared"].mean() == pytest.approx(30.55333, abs=1e-5)
    assert topic.hinge(np.zeros((1, 3)), [0]) == 2
    assert topic.hinge(np.zeros((1, 10)), [4]) == 9


def test_F043_one_sample_by_hand_equals_all_at_once(rng):
    scores, labels = rng.standard_normal((30, 10)), rng.integers(0, 10, 30)
    one_by_one = [topic.hinge_of_one(s, y) for s, y in zip(scores, labels, strict=True)]
    np.testing.assert_allclose(topic.hinge(scores, labels), one_by_one, rtol=0, atol=1e-12)


def test_F049_the_lectures_softmax():
    unnormalised, p = topic.softmax_steps(SCORES[0])
    np.testing.assert_allclose(unnormalised, [24.5325, 164.0219, 0.1827], rtol=0, atol=5e-5)
    np.testing.assert_allclose(p, [0.12998, 0.86905, 0.00097], rtol=0, atol=5e-6)
    np.testing.assert_allclose(F.softmax(SCORES, dim=1).data[0], p, rtol=1e-12)


def test_F049_the_loss_takes_the_natural_logarithm():
    """X1: the printed 0.89 is -log10(0.13)."""
    values = topic.cross_entropy(SCORES, LABELS)
    np.testing.assert_allclose(values, [2.04036, 0.07913, 6.15648], rtol=0, atol=5e-6)
    assert values.mean() == pytest.approx(2.75865, abs=1e-5)
    assert values[0] / np.log(10) == pytest.approx(0.88611, abs=5e-6)
    assert topic.cross_entropy(np.zeros((1, 3)), [0]).item() == pytest.approx(np.log(3), abs=1e-12)


def test_F049_huge_scores_give_no_nan():
    scores = np.array([[1e4, 0.0, -1e4], [-1e4, 1e4, 1e4]])
    values = topic.cross_entropy(scores, [0, 1])
    np.testing.assert_allclose(values, [0, np.log(2)], rtol=0, atol=1e-12)
    assert topic.cross_entropy(scores, [2, 0]).tolist() == [2e4, 2e4 + np.log(2)]
    assert np.isfinite(F.softmax(scores, dim=1).data).all()


def test_F050_quadratic_cost_with_and_without_the_half(rng):
    a, y = rng.standard_normal((8, 3)), rng.standard_normal((8, 3))
    expected = (np.linalg.norm(y - a, axis=1) ** 2).sum() / (2 * 8)
    assert topic.quadratic_cost(a, y).item() == pytest.approx(expected, rel=1e-12)
    assert topic.quadratic_cost(a, y, half=False).item() == pytest.approx(2 * expected, rel=1e-12)
    leaf = nnx.tensor(a, requires_grad=True)
    topic.quadratic_cost(leaf, y).backward()
    np.testing.assert_allclose(leaf.grad, (a - y) / 8, rtol=0, atol=1e-15)


def test_F051_gradient_of_binary_cross_entropy_is_a_minus_y(rng):
    z, y = rng.standard_normal(100) * 4, rng.integers(0, 2, 100).astype(np.float64)
    leaf = nnx.tensor(z, requires_grad=True)
    loss = F.binary_cross_entropy_with_logits(leaf, y, reduction="sum")
    loss.backward()
    np.testing.assert_allclose(leaf.grad, 1 / (1 + np.exp(-z)) - y, rtol=0, atol=1e-15)
    each = F.binary_cross_entropy(F.sigmoid(z), y, reduction="none").data
    assert (each >= 0).all() and loss.item() == pytest.approx(each.sum(), rel=1e-12)


def test_F051_quadratic_cost_stands_still_where_the_unit_saturates():
    quadratic, entropy = topic.output_gradients(np.array([6.0]), 0.0)
    a = 1 / (1 + np.exp(-6.0))
    assert quadratic.item() == pytest.approx(a * a * (1 - a), rel=1e-12)
    assert entropy.item() == pytest.approx(a, rel=1e-12)


def test_F052_hinge_is_content_where_softmax_is_not():
    labels = np.zeros(3, int)
    assert topic.hinge(topic.SAME, labels).tolist() == [0, 0, 0]
    np.testing.assert_allclose(topic.cross_entropy(topic.SAME, labels), [0.000918, 0.551445, 0], rtol=0, atol=5e-7)


def test_F052_the_full_loss_is_data_plus_penalty(rng):
    x, w = rng.standard_normal((20, 6)), nnx.tensor(rng.standard_normal((4, 6)), requires_grad=True)
    y = rng.integers(0, 4, 20)
    for loss in (F.multiclass_hinge_loss, F.cross_entropy):
        w.grad = None
        full = loss(F.linear(x, w), y) + F.l2_penalty(w, 0.1)
        full.backward()
        data = loss(F.linear(x, w.data), y).item()
        assert full.item() == pytest.approx(data + 0.1 * (w.data**2).sum(), rel=1e-12)
        numeric = nnx.testing.eval_numerical_gradient(
            lambda v, loss=loss: loss(F.linear(x, v), y).item() + 0.1 * (v**2).sum(), w.data.copy(), 1e-6, True
        )
        np.testing.assert_allclose(w.grad, numeric, rtol=0, atol=1e-7)
