"""Rows of nnx.course.backpropagation."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx import nn
from nnx.course import backpropagation as topic
from nnx.graph import deltas, jacobian
from nnx.testing import eval_numerical_gradient, relative_error


def test_F084_jacobians_are_diagonal_or_the_matrix(rng):
    x = np.array([1.0, -2.0, 3.0, -1.0])
    np.testing.assert_array_equal(topic.relu_jacobian(x), np.diag([1.0, 0, 1, 0]))
    w = rng.standard_normal((2, 4))
    np.testing.assert_array_equal(jacobian(lambda v: nnx.tensor(w) @ v, x), w)
    # backward is the product with a row, and never builds the matrix
    leaf, gy = nnx.tensor(x, requires_grad=True), rng.standard_normal(4)
    nnx.tanh(leaf).backward(gy)
    np.testing.assert_allclose(leaf.grad, gy @ jacobian(nnx.tanh, x), rtol=1e-14)


def test_F084_jacobian_equals_pytorch(rng):
    torch = pytest.importorskip("torch")
    w, x = rng.standard_normal((4, 3)), rng.standard_normal(3)
    ours = jacobian(lambda v: nnx.functional.softmax(nnx.tensor(w) @ v, dim=0), x)
    theirs = torch.autograd.functional.jacobian(
        lambda v: torch.softmax(torch.tensor(w) @ v, dim=0), torch.tensor(x)
    ).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-14)


def test_F085_staged_svm_equals_numeric_gradient_and_tape(rng):
    w, x, y = rng.standard_normal((4, 6)), rng.standard_normal((10, 6)), rng.integers(0, 4, 10)
    loss, dw = topic.svm_in_stages(w, x, y, 0.3)
    tape_loss, tape_dw = topic.svm_by_tape(w, x, y, 0.3)
    assert loss == pytest.approx(tape_loss, rel=1e-13)
    np.testing.assert_allclose(dw, tape_dw, rtol=1e-12)
    numeric = eval_numerical_gradient(lambda v: topic.svm_in_stages(v, x, y, 0.3)[0], w, centered=True)
    assert relative_error(dw, numeric) < 1e-8  # rounding 1e-16 / 1e-5; no margin lies within the step
    assert relative_error(dw - 2 * 0.3 * w, numeric) > 0.01  # without the regularisation it is seen


def test_F085_staged_svm_on_the_slides_scores():
    """Scores of the cat, car and frog as the images themselves, W the unit matrix: losses 2.9, 0 and 12.9."""
    scores = np.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
    loss, _ = topic.svm_in_stages(np.eye(3), scores, np.array([0, 1, 2]), 0.0)
    assert loss == pytest.approx((2.9 + 0 + 12.9) / 3, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_F086_four_equations_equal_the_tape_in_every_layer(seed):
    assert max(topic.compare_four_equations(seed).values()) < 1e-14


def test_F086_X22_the_error_runs_back_from_the_last_layer(rng):
    """The right order is L-1, ..., 1: each delta needs the one behind it."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 2)).double()
    x = rng.standard_normal((5, 3))
    first, middle, last = deltas(model, x, lambda z: (z * z).sum() / 2)
    np.testing.assert_allclose(last.delta, last.output, rtol=1e-14)
    for here, behind in ((middle, last), (first, middle)):
        a = nnx.sigmoid(nnx.tensor(here.output)).data
        weight = dict(model.named_parameters())[f"{behind.name}.weight"].data
        np.testing.assert_allclose(here.delta, (behind.delta @ weight) * a * (1 - a), rtol=1e-12)


def test_F088_eleven_lines_golden_errors():
    errors, weights = topic.eleven_lines(60_000)
    golden = [0.496410031903, 0.008584525653, 0.005789459863, 0.004629176777, 0.003958765280, 0.003510122568]
    # printed with 12 digits; exp may differ by a rounding between systems, which 60,000 steps hardly change
    np.testing.assert_allclose([errors[j] for j in range(0, 60_000, 10_000)], golden, rtol=0, atol=2e-12)
    assert errors[60_000] == pytest.approx(0.003183530736, abs=2e-12)
    assert [w.shape for w in weights] == [(3, 4), (4, 1)]


def test_F088_the_tape_takes_the_same_way():
    _, by_hand = topic.eleven_lines(200)
    for ours, theirs in zip(topic.eleven_lines_by_tape(200), by_hand, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11)


def test_F088_two_layer_skeleton(rng):
    """h, scores, loss; dscores; dh, dw2, db2; dw1, db1 for a softmax loss, against the tape."""
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    x, y = rng.standard_normal((7, 3)), rng.integers(0, 2, 7)
    nnx.functional.cross_entropy(model(x), y).backward()
    w1, b1, w2, b2 = (p.data for p in model.parameters())
    h = np.maximum(0, x @ w1.T + b1)
    scores = h @ w2.T + b2
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    dscores = p / p.sum(axis=1, keepdims=True)
    dscores[np.arange(7), y] -= 1
    dscores /= 7
    dh, dw2, db2 = dscores @ w2, dscores.T @ h, dscores.sum(axis=0)
    dh[h <= 0] = 0
    dw1, db1 = dh.T @ x, dh.sum(axis=0)
    for ours, theirs in zip((dw1, db1, dw2, db2), model.parameters(), strict=True):
        np.testing.assert_allclose(ours, theirs.grad, rtol=1e-11, atol=1e-14)


def test_F089_shapes_of_three_layers_and_of_the_convnet():
    forward = topic.three_layers(seed=0)
    assert forward["shapes"] == [[4, 1], [4, 1], [1, 1]]
    assert forward["difference"] < 1e-14
    assert topic.pipeline() == [[12, 32, 32], [12, 32, 32], [12, 16, 16], [3072], [10]]
    sizes = [sum(p.size for p in layer.parameters()) for layer in topic.small_convnet()]
    assert [n for n in sizes if n] == [336, 30_730]


def test_F090_parameters_and_summary():
    assert topic.count(topic.two_layer_net()) == (3 * 4 + 4 * 2) + (4 + 2) == 26
    assert topic.count(topic.three_layer_net()) == (3 * 4 + 4 * 4 + 4 * 1) + (4 + 4 + 1) == 41
    assert "parameters: 26 (trainable: 26)" in topic.two_layer_net().summary(3)
    assert "parameters: 41 (trainable: 41)" in topic.three_layer_net().summary(3)
