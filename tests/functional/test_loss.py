"""Losses: golden values, limits, arguments and errors. Gradients and PyTorch: tests/test_cases.py."""

from __future__ import annotations

import math

import numpy as np
import pytest

import nnx
import nnx.functional as F
from nnx.testing import base_backend

INF, NAN = math.inf, math.nan

# scores of a cat, a car and a frog for the classes cat, car, frog: the example of the course
SCORES = np.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
LABELS = np.array([0, 1, 2])


@pytest.fixture(params=["cpu", "base"])
def backend(request):
    """Run the test with the compiled and with the base backend."""
    if request.param == "cpu":
        yield
    else:
        with base_backend():
            yield


# -- golden values ---------------------------------------------------------------------------------


def hinge(scores, labels, **options):
    return F.multiclass_hinge_loss(scores, labels, **options).data


def test_multiclass_hinge_of_the_course(backend):
    np.testing.assert_allclose(hinge(SCORES, LABELS, reduction="none"), [2.9, 0, 12.9], atol=1e-12)
    np.testing.assert_allclose(hinge(SCORES, LABELS), 5.26667, atol=5e-6)


def test_multiclass_hinge_of_doubled_weights(backend):
    """A car classified with a margin stays at loss 0: the weights are not unique."""
    np.testing.assert_allclose(hinge(2 * SCORES, LABELS, reduction="none"), [4.8, 0, 23.8], atol=1e-12)


def test_multiclass_hinge_variants_of_the_quiz(backend):
    losses = hinge(SCORES, LABELS, reduction="none")
    # with the sum over all classes, the right one adds its margin
    np.testing.assert_allclose(losses + 1, [3.9, 1, 13.9], atol=1e-12)
    np.testing.assert_allclose((losses + 1).mean(), 6.2667, atol=5e-5)
    squared = hinge(SCORES, LABELS, p=2, reduction="none")
    np.testing.assert_allclose(squared, [8.41, 0, 83.25], atol=1e-12)
    np.testing.assert_allclose(hinge(SCORES, LABELS, p=2), 30.5533, atol=5e-5)
    np.testing.assert_allclose(losses / 2, [1.45, 0, 6.45], atol=1e-12)
    # scores near 0, as before training: one for each wrong class
    assert hinge(np.zeros((1, 3)), [0]) == 2 and hinge(np.zeros((1, 10)), [0]) == 9


def test_wrong_scores_below_zero_cost_nothing(backend):
    """The right class's own 0 must not leak into the maximum over the wrong ones."""
    assert hinge([[-1.0, -5.0, -5.0]], [0]) == 0


def test_softmax_loss_of_the_course(backend):
    """The slide prints 0.89 for the first, which is the logarithm to base 10."""
    losses = F.cross_entropy(SCORES, LABELS, reduction="none").data
    np.testing.assert_allclose(losses, [2.04036, 0.07913, 6.15648], atol=5e-6)
    np.testing.assert_allclose(F.cross_entropy(SCORES, LABELS).item(), 2.75865, atol=5e-6)
    assert round(losses[0] / math.log(10), 5) == 0.88611
    np.testing.assert_allclose(F.cross_entropy(np.zeros((5, 3)), [0] * 5).item(), math.log(3))


def test_hinge_is_content_where_softmax_is_not(backend):
    scores = np.array([[10.0, -2, 3], [10, 9, 9], [10, -100, -100]])
    assert hinge(scores, [0, 0, 0], reduction="none").tolist() == [0, 0, 0]
    losses = F.cross_entropy(scores, [0, 0, 0], reduction="none").data
    np.testing.assert_allclose(losses, [0.000918, 0.551445, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda x, t: F.mse_loss(x, t, reduction="none"), [0.25, 9, 0]),
        (lambda x, t: F.l1_loss(x, t, reduction="none"), [0.5, 3, 0]),
        (lambda x, t: F.huber_loss(x, t, "none"), [0.125, 2.5, 0]),
        (lambda x, t: F.huber_loss(x, t, "none", delta=2), [0.125, 4, 0]),
        (lambda x, t: F.smooth_l1_loss(x, t, reduction="none"), [0.125, 2.5, 0]),
        (lambda x, t: F.smooth_l1_loss(x, t, reduction="none", beta=2), [0.0625, 2, 0]),
        (lambda x, t: F.smooth_l1_loss(x, t, reduction="none", beta=0), [0.5, 3, 0]),
        (lambda x, t: F.mse_loss(x, t, reduction="sum"), 9.25),
        (lambda x, t: F.mse_loss(x, t), 9.25 / 3),
        (lambda x, t: F.mse_loss(x, t, weight=[4, 0, 1]), 0.2),
        (lambda x, t: F.huber_loss(x, t, weight=[4, 0, 1]), 0.5 / 3),
    ],
)
def test_regression_losses(loss, expected, backend):
    x, t = np.array([1.5, -1.0, 2.0]), np.array([1.0, 2.0, 2.0])
    np.testing.assert_allclose(loss(x, t).data, expected, rtol=1e-12)


def test_binary_cross_entropy(backend):
    x, t = [0.5, 0.25, 0.25], [1.0, 0.0, 1.0]
    losses = F.binary_cross_entropy(x, t, reduction="none").data
    np.testing.assert_allclose(losses, [math.log(2), math.log(4 / 3), math.log(4)], rtol=1e-6)
    z = np.log(np.array(x) / (1 - np.array(x)))
    from_scores = F.binary_cross_entropy_with_logits(z, t, reduction="none").data
    np.testing.assert_allclose(from_scores, losses, rtol=1e-6)
    heavy = F.binary_cross_entropy_with_logits(z, t, reduction="none", pos_weight=3).data
    np.testing.assert_allclose(heavy, losses * [3, 1, 3], rtol=1e-6)


def test_gradient_of_sigmoid_and_binary_cross_entropy_is_the_difference(backend, rng):
    z, t = rng.standard_normal(1000), rng.random(1000)
    x = nnx.Tensor(z, requires_grad=True)
    F.binary_cross_entropy_with_logits(x, t, reduction="sum").backward()
    np.testing.assert_allclose(x.grad, 1 / (1 + np.exp(-z)) - t, rtol=0, atol=1e-15)


def test_divergence_of_equal_distributions_is_zero(backend, rng):
    p = F.softmax(rng.standard_normal((5, 7)), 1).data
    q = F.softmax(rng.standard_normal((5, 7)), 1).data
    same = F.kl_div(np.log(p), p, reduction="batchmean").item()
    assert abs(same) < 1e-15 < F.kl_div(np.log(q), p, reduction="batchmean").item()
    expected = (p * np.log(p / q)).sum() / 5
    for log in (False, True):
        target = np.log(p) if log else p
        y = F.kl_div(np.log(q), target, reduction="batchmean", log_target=log)
        np.testing.assert_allclose(y.item(), expected, rtol=1e-12)


# -- cross-entropy and its relatives ---------------------------------------------------------------


def test_labels_and_one_hot_probabilities_agree(backend, rng):
    x, labels = rng.standard_normal((6, 4, 5)), rng.integers(0, 4, (6, 5))
    hot = np.moveaxis(np.eye(4)[labels], -1, 1)
    for smoothing in (0.0, 0.3):
        by_label = F.cross_entropy(x, labels, label_smoothing=smoothing, reduction="none").data
        by_hot = F.cross_entropy(x, hot, label_smoothing=smoothing, reduction="none").data
        np.testing.assert_allclose(by_label, by_hot, rtol=1e-12)


def test_cross_entropy_is_log_softmax_and_nll(backend, rng):
    x, labels = rng.standard_normal((6, 4)), rng.integers(0, 4, 6)
    weight = rng.random(4)
    for options in ({}, {"weight": weight}, {"ignore_index": 1}, {"reduction": "none"}):
        expected = F.nll_loss(F.log_softmax(x, 1), labels, **options).data
        np.testing.assert_allclose(F.cross_entropy(x, labels, **options).data, expected, rtol=1e-12)


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_scores_of_any_size(size, backend):
    x = nnx.Tensor(np.array([[size, -size, 0]], np.float32), requires_grad=True)
    loss = F.cross_entropy(x, [0])
    loss.backward()
    assert loss.item() == 0 and x.grad.tolist() == [[0, 0, 0]]
    x.grad = None
    loss = F.cross_entropy(x, [1])
    loss.backward()
    np.testing.assert_allclose(loss.item(), 2 * size, rtol=1e-6)
    np.testing.assert_allclose(x.grad, [[1, -1, 0]])


def test_a_class_that_is_impossible_costs_infinity(backend):
    x = np.array([[-INF, 0.0, 0.0]])
    assert F.cross_entropy(x, [0]).item() == INF
    np.testing.assert_allclose(F.cross_entropy(x, [1]).item(), math.log(2))
    # probability 0 for what is impossible: 0 log 0 is 0
    np.testing.assert_allclose(F.cross_entropy(x, [[0, 0.5, 0.5]]).item(), math.log(2))


@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss])
@pytest.mark.parametrize("weight", [None, [1.0, 2.0, 3.0]])
def test_ignored_samples_count_nothing_whatever_they_hold(loss, weight, backend):
    x = nnx.Tensor(np.array([[1.0, 2, 3], [NAN, INF, 0], [0, 1, 0]]), requires_grad=True)
    y = loss(x, [0, -100, 2], weight)
    y.backward()
    expected = loss(x.data[[0, 2]], [0, 2], weight)
    np.testing.assert_allclose(y.item(), expected.item(), rtol=1e-12)
    assert x.grad[1].tolist() == [0, 0, 0] and np.isfinite(x.grad).all()


@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss])
def test_all_ignored(loss, backend):
    """As in PyTorch, the mean of nothing is NaN; it has no gradient."""
    x = nnx.Tensor(np.ones((2, 3)), requires_grad=True)
    mean = loss(x, [-100, -100])
    mean.backward()
    assert math.isnan(mean.item()) and not x.grad.any()
    assert loss(x, [-100, -100], reduction="sum").item() == 0
    assert loss(x, [7, 7], ignore_index=7, reduction="none").data.tolist() == [0, 0]


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.int64, np.uint64, list])
def test_labels_of_any_integer_type(kind, backend):
    labels = LABELS.tolist() if kind is list else LABELS.astype(kind)
    for loss in (F.cross_entropy, F.nll_loss, F.multiclass_hinge_loss):
        assert loss(SCORES, labels).item() == loss(SCORES, nnx.Tensor(LABELS)).item()


def test_empty_batch(backend):
    x, labels = np.zeros((0, 3)), np.zeros(0, int)
    for loss in (F.cross_entropy, F.nll_loss, F.multiclass_hinge_loss):
        assert math.isnan(loss(x, labels).item())
        assert loss(x, labels, reduction="sum").item() == 0
        assert loss(x, labels, reduction="none").shape == (0,)
    assert math.isnan(F.mse_loss(x, x).item())


# -- one result for all ----------------------------------------------------------------------------

BOTH = {
    "mse_loss": F.mse_loss,
    "l1_loss": F.l1_loss,
    "huber_loss": F.huber_loss,
    "smooth_l1_loss": F.smooth_l1_loss,
    "binary_cross_entropy": F.binary_cross_entropy,
    "binary_cross_entropy_with_logits": F.binary_cross_entropy_with_logits,
    "kl_div": F.kl_div,
}
SCORED = {
    "cross_entropy": F.cross_entropy,
    "nll_loss": F.nll_loss,
    "multiclass_hinge_loss": F.multiclass_hinge_loss,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("name", [*BOTH, *SCORED])
def test_types_and_shapes(name, reduction, dtype):
    x = nnx.Tensor(np.full((4, 3), 0.5, dtype), requires_grad=True)
    t = [0, 1, 2, 0] if name in SCORED else np.full((4, 3), 0.25)
    y = {**BOTH, **SCORED}[name](x, t, reduction=reduction)
    assert y.dtype == dtype
    each = (4,) if name in SCORED else (4, 3)
    assert y.shape == (each if reduction == "none" else ())
    y.backward(np.ones_like(y.data))
    assert x.grad.dtype == dtype and x.grad.shape == (4, 3)


@pytest.mark.parametrize("name", BOTH)
def test_targets_of_any_type(name):
    """Arrays, integers and booleans are cast to the input's type."""
    x = np.array([0.5, 0.25], np.float32)
    expected = BOTH[name](x, np.array([0, 1], np.float32)).item()
    for t in ([0, 1], [False, True], np.array([0, 1], np.float64), nnx.Tensor(np.array([0, 1]))):
        assert BOTH[name](x, t).item() == expected


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted({*BOTH, *SCORED} - {"huber_loss"}))  # it never had them
@pytest.mark.parametrize("argument", ["size_average", "reduce"])
def test_deprecated_arguments(name, argument):
    loss = {**BOTH, **SCORED}[name]
    message = f"{name}: expected no argument {argument}, which is deprecated, got False. Use reduction"
    with pytest.raises(TypeError, match=message):
        loss(SCORES, LABELS, **{argument: False})


@pytest.mark.parametrize("name", [*BOTH, *SCORED])
def test_unknown_reduction(name):
    message = f"{name}: expected reduction to be one of 'none', 'mean', 'sum'.*, got 'avg'"
    with pytest.raises(ValueError, match=message):
        {**BOTH, **SCORED}[name](SCORES, LABELS, reduction="avg")


@pytest.mark.parametrize("name", BOTH)
def test_shapes_must_agree(name):
    """(N, 1) beside (N,) is the classic mistake: broadcast, it compares everything with everything."""
    message = rf"{name}: expected target of shape \(3, 1\) like input, got \(3,\). Nothing is broadcast"
    with pytest.raises(ValueError, match=message):
        BOTH[name](np.zeros((3, 1)), np.zeros(3))


@pytest.mark.parametrize("name", BOTH)
def test_float_types_must_agree(name):
    message = f"{name}: expected target of dtype float64 like input, got a Tensor of dtype float32"
    with pytest.raises(TypeError, match=message):
        BOTH[name](np.zeros(3), nnx.tensor([0.0, 0.0, 0.0]))


@pytest.mark.parametrize("name", [*BOTH, *SCORED])
def test_integer_input(name):
    message = f"{name}: expected input of dtype float32 or float64, got a Tensor of dtype int64"
    with pytest.raises(TypeError, match=message):
        {**BOTH, **SCORED}[name](nnx.Tensor(np.zeros((3, 3), int)), LABELS)


ODD = np.array([0, 1, 5])


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (lambda f: f(SCORES, ODD), IndexError, r"expected target in \[0, 2\].*, got 5 at index \(2,\)"),
        (lambda f: f(SCORES, [0, -1, 1]), IndexError, r"expected target in \[0, 2\].*, got -1 at index \(1,\)"),
        (lambda f: f(SCORES, np.array([2**64 - 1] * 3, np.uint64)), IndexError, r"expected target in \[0, 2\]"),
        (lambda f: f(SCORES[0], 3), IndexError, r"expected target in \[0, 2\].*, got 3$"),
        (lambda f: f(SCORES, [0, 1]), ValueError,
         r"expected target of shape \(3,\) for input of shape \(3, 3\), got \(2,\)"),
        (lambda f: f(SCORES, np.eye(3, dtype=int)), ValueError,
         r"expected target of shape .*, got \(3, 3\). Of one-hot targets take argmax\(1\)"),
        (lambda f: f(SCORES, [0.0, 1.0, 2.0]), TypeError,
         r"expected target to be integer class labels of shape \(3,\), got dtype float64 and shape \(3,\)"),
        (lambda f: f(SCORES, [True, False, True]), TypeError, "expected target to be integer class labels"),
        (lambda f: f(3.0, 0), ValueError, "expected input of shape"),
        (lambda f: f(SCORES, LABELS, weight=[1.0, 2.0]), ValueError,
         r"expected weight of shape \(3,\), one for each class, got \(2,\)"),
        (lambda f: f(SCORES, LABELS, weight=["a"] * 3), TypeError, "expected weight to be an array of numbers"),
        (lambda f: f(SCORES, LABELS, weight=nnx.Tensor(np.ones(3), requires_grad=True)), ValueError,
         "expected weight to be a constant, got a Tensor that needs a gradient"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", SCORED)
def test_errors_of_scored_losses(name, action, error, message):
    with pytest.raises(error, match=f"{name}: {message}"):
        action(SCORED[name])


X = np.zeros((3, 4))


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (lambda: F.cross_entropy(SCORES, ODD), IndexError, r"\(or ignore_index -100\), got 5"),
        (lambda: F.cross_entropy(SCORES, LABELS, ignore_index=0.5), TypeError,
         "cross_entropy: expected ignore_index to be an integer"),
        (lambda: F.cross_entropy(SCORES, LABELS, label_smoothing=1.5), ValueError,
         r"cross_entropy: expected label_smoothing to be a number in \[0, 1\], got 1.5"),
        (lambda: F.cross_entropy(SCORES, nnx.Tensor(SCORES.astype("f4"))), TypeError,
         "cross_entropy: expected target of dtype float64 like input"),
        (lambda: F.multiclass_hinge_loss(SCORES, LABELS, p=3), ValueError,
         "multiclass_hinge_loss: expected p to be one of 1, 2, got 3"),
        (lambda: F.multiclass_hinge_loss(SCORES, LABELS, margin="1"), TypeError,
         "multiclass_hinge_loss: expected margin to be a number"),
        (lambda: F.multiclass_hinge_loss(np.zeros((2, 3, 4)), LABELS), ValueError,
         r"multiclass_hinge_loss: expected input of shape \(N, C\) or \(C,\), got shape \(2, 3, 4\)"),
        (lambda: F.huber_loss(X, X, delta=0), ValueError,
         r"huber_loss: expected delta to be a number in \(0, inf\), got 0"),
        (lambda: F.smooth_l1_loss(X, X, beta=-1), ValueError, "smooth_l1_loss: expected beta to be a number"),
        (lambda: F.mse_loss(X, X, weight=np.ones(4)), ValueError,
         r"mse_loss: expected weight of shape \(3, 4\) like input, got \(4,\)"),
        (lambda: F.binary_cross_entropy(X, X, weight=np.ones(3)), ValueError,
         r"binary_cross_entropy: expected weight that broadcasts to the shape of input, \(3, 4\), got \(3,\)"),
        (lambda: F.binary_cross_entropy(X, X, weight=np.ones((2, 3, 4))), ValueError, "expected weight that"),
        (lambda: F.binary_cross_entropy_with_logits(X, X, pos_weight=np.ones(3)), ValueError,
         "binary_cross_entropy_with_logits: expected pos_weight that broadcasts to the shape of input"),
        (lambda: F.binary_cross_entropy([0.5, 1.5], [0, 1]), ValueError,
         r"binary_cross_entropy: expected input in \[0, 1\], got 1.5. For scores use "
         "binary_cross_entropy_with_logits"),
        (lambda: F.binary_cross_entropy([0.5, NAN, -0.25], [0, 1, 1]), ValueError, "expected input in .*, got -0.25"),
        (lambda: F.binary_cross_entropy([0.5], [2]), ValueError,
         r"binary_cross_entropy: expected target in \[0, 1\], got 2$"),
    ],
)  # fmt: skip
def test_errors(action, error, message):
    with pytest.raises(error, match=message):
        action()


def test_nan_probability_is_passed_on():
    assert math.isnan(F.binary_cross_entropy([0.5, NAN], [0, 1]).item())


def test_errors_come_before_anything_is_computed(monkeypatch):
    """A wrong label in the last sample leaves no trace: no result, no node, no gradient."""
    x = nnx.Tensor(SCORES.copy(), requires_grad=True)
    with pytest.raises(IndexError):
        F.cross_entropy(x, ODD)
    assert x.grad is None and x.data.tobytes() == SCORES.tobytes()


@pytest.mark.parametrize("dtype", [np.float16, np.longdouble])
def test_other_float_types_run_in_numpy(dtype, rng):
    from nnx.backends import Backend
    from nnx.backends.cpu import CPUBackend

    x, labels = rng.standard_normal((4, 5)).astype(dtype), rng.integers(-1, 5, 4)
    for ours, theirs in zip(
        CPUBackend().softmax_cross_entropy(x, labels, 0.1),
        Backend().softmax_cross_entropy(x, labels, 0.1),
        strict=True,
    ):
        assert ours.dtype == dtype
        np.testing.assert_array_equal(ours, theirs)
