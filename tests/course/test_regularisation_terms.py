"""Rows of nnx.course.regularisation_terms."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
import nnx.functional as F
from nnx.course import regularisation_terms as topic

W = np.array([[1.0, -2.0, 0.0], [0.5, 3.0, -1.5]])


def test_F045_l2_in_all_conventions():
    squares = (W * W).sum()
    table = topic.conventions(W, 0.3, 8)
    assert table["sum"][1] == pytest.approx(0.3 * squares, rel=1e-12)  # S2's formula
    assert table["half"][1] == pytest.approx(0.3 / 2 * squares, rel=1e-12)
    assert table["half-mean"][1] == pytest.approx(0.3 / 16 * squares, rel=1e-12)  # S1 and S4
    leaf = nnx.tensor(W, requires_grad=True)
    F.l2_penalty(leaf, 0.3, "half").backward()
    np.testing.assert_allclose(leaf.grad, 0.3 * W, rtol=1e-12)


def test_F045_the_half_is_what_weight_decay_does(rng):
    a, b = (nnx.Parameter(W.copy()) for _ in range(2))
    (F.l2_penalty(a, 0.3, "half")).backward()
    nnx.optim.SGD([a], lr=0.1).step()
    (b * 0.0).sum().backward()
    nnx.optim.SGD([b], lr=0.1, weight_decay=0.3).step()
    np.testing.assert_allclose(a.data, b.data, rtol=1e-12)


def test_F045_the_printed_loss_with_reg_1000_has_the_half():
    """X3: S2 prints 3.0686 beside lambda * sum(W^2), but a two-layer net of 50 units gives that with lambda / 2."""
    rng = np.random.default_rng(0)
    weights = [1e-4 * rng.standard_normal((3072, 50)), 1e-4 * rng.standard_normal((50, 10))]
    with_half = np.log(10) + F.l2_penalty(weights, 1e3, "half").item()
    without = np.log(10) + F.l2_penalty(weights, 1e3).item()
    assert abs(with_half - 3.0731) < 4 * 0.0028
    assert abs(with_half - 3.06859716482) < 4 * 0.0028
    assert abs(without - 3.8436) < 4 * 0.0056


def test_F046_l1_in_all_conventions_and_its_subgradient():
    absolute = np.abs(W).sum()
    table = topic.conventions(W, 0.3, 8)
    assert table["sum"][0] == pytest.approx(0.3 * absolute, rel=1e-12)  # Keras's L1(0.3)
    assert table["mean"][0] == pytest.approx(0.3 / 8 * absolute, rel=1e-12)  # S4
    assert table["half-mean"][0] == pytest.approx(0.3 / 16 * absolute, rel=1e-12)  # S1
    np.testing.assert_array_equal(topic.gradients(W)["l1"], np.sign(W))


def test_F046_l1_makes_weights_vanish():
    plain, sparse = (topic.train("l1", reg, 10, seed=0).coef_ for reg in (0.0, 3e-3))
    assert np.mean(np.abs(sparse) < 0.01) > 2 * np.mean(np.abs(plain) < 0.01)


def test_F047_elastic_net_value_and_gradient():
    for beta in (0.0, 0.5, 2.0):
        leaf = nnx.tensor(W, requires_grad=True)
        value = F.elastic_net_penalty(leaf, 0.3, beta)
        value.backward()
        assert value.item() == pytest.approx(0.3 * (beta * W * W + np.abs(W)).sum(), rel=1e-12)
        np.testing.assert_allclose(leaf.grad, 0.3 * (2 * beta * W + np.sign(W)), rtol=0, atol=1e-12)


def test_F048_the_lectures_complexities():
    line, parabola = ([topic.complexity(w, order) for order in (0, 1, 2)] for w in (topic.LINE, topic.PARABOLA))
    np.testing.assert_allclose(line, [2, 2.5, 3.13], rtol=0, atol=1e-12)
    np.testing.assert_allclose(parabola, [1, 2.2, 4.84], rtol=0, atol=1e-12)
    assert line[1] > parabola[1] and line[2] < parabola[2]  # which is simpler? they disagree
