"""Classifiers by gradient descent, and regression."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx.classic import LinearRegression, LinearSVM, PolynomialRegression, SoftmaxClassifier, TwoLayerClassifier


@pytest.fixture(scope="module")
def digits():
    data = nnx.data.digits()
    mean = data.x_train.mean(axis=0)
    return data.x_train - mean, data.y_train, data.x_test - mean, data.y_test


MODELS = [
    LinearSVM(learning_rate=0.01),
    LinearSVM("squared hinge", learning_rate=0.003),
    SoftmaxClassifier(0.1),
    TwoLayerClassifier(50, learning_rate=0.1),
]
each = pytest.mark.parametrize("model", MODELS, ids=repr)


@each
def test_digits(model, digits):
    x, y, x_test, y_test = digits
    model.fit(x, y, x_test, y_test)
    assert model.score(x_test, y_test) > 0.92
    assert len(model.loss_curve_) == len(model.validation_curve_) == model.epochs
    assert model.loss_curve_[-1] < model.loss_curve_[0] / 2
    assert model.validation_curve_[-1] == model.score(x_test, y_test)
    assert model.decision_function(x_test).shape == (359, 10)
    assert model.objective(x, y) == pytest.approx(model.loss_curve_[-1], rel=0.5)


@each
def test_the_same_seed_gives_the_same_bits(model, digits):
    x, y, x_test, _ = digits
    first, second, other = (
        type(model)(**{**model.get_params(), "epochs": 2, "random_state": s}).fit(x, y).decision_function(x_test)
        for s in (1, 1, 2)
    )
    assert first.tobytes() == second.tobytes()
    assert first.tobytes() != other.tobytes()


@each
def test_float64_stays(model, digits):
    x, y, x_test, _ = digits
    scores = type(model)(**{**model.get_params(), "epochs": 1}).fit(x.astype(np.float64), y).decision_function(x_test)
    assert scores.dtype == np.float64


@pytest.mark.parametrize("model", MODELS[2:], ids=repr)
def test_probabilities(model, digits):
    x, y, x_test, _ = digits
    model.fit(x, y)
    p = model.predict_proba(x_test)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(model.classes_[p.argmax(axis=1)], model.predict(x_test))


def test_one_step_by_hand():
    """Full batch, no momentum: W -= learning_rate (dL/dW + 2 reg W)."""
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((12, 4)), np.arange(12) % 3
    start = SoftmaxClassifier(epochs=0).fit(x, y)
    w, b = start.coef_.copy(), start.intercept_.copy()
    p = np.exp(x @ w.T + b)
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(12), y] -= 1
    one = SoftmaxClassifier(0.5, reg=0.1, batch_size=12, epochs=1, momentum=0).fit(x, y)
    np.testing.assert_allclose(one.coef_, w - 0.5 * (p.T @ x / 12 + 0.2 * w), rtol=0, atol=1e-12)
    np.testing.assert_allclose(one.intercept_, b - 0.5 * p.mean(axis=0), rtol=0, atol=1e-12)


def test_learning_rate_decays_by_epoch():
    x, y = np.eye(4), [0, 1, 0, 1]
    frozen = SoftmaxClassifier(1.0, 0.0, momentum=0.0, epochs=2, batch_size=4, learning_rate_decay=1e-12).fit(x, y)
    once = SoftmaxClassifier(1.0, 0.0, momentum=0.0, epochs=1, batch_size=4).fit(x, y)
    np.testing.assert_allclose(frozen.coef_, once.coef_, rtol=0, atol=1e-11)


@pytest.mark.parametrize("penalty", ["l1", "l2", "elastic net"])
def test_penalties_shrink_the_weights_and_leave_the_bias(penalty, digits):
    x, y, _, _ = digits
    free, bound = (SoftmaxClassifier(0.05, reg, penalty, epochs=10).fit(x, y) for reg in (0.0, 0.05))
    assert np.abs(bound.coef_).sum() < 0.5 * np.abs(free.coef_).sum()
    shifted = SoftmaxClassifier(0.05, 10.0, "l2", epochs=50, momentum=0).fit(np.ones((10, 1)), [0] * 9 + [1])
    assert abs(shifted.coef_).max() < 0.1 < shifted.intercept_[0] - shifted.intercept_[1]


def test_svm_reaches_sklearns_solution(rng):
    """Two classes of the multiclass hinge are the binary SVM of w_1 - w_0; scikit-learn's solver is exact."""
    svm = pytest.importorskip("sklearn.svm")
    x = np.concatenate([rng.standard_normal((60, 2)) + 2, rng.standard_normal((60, 2)) - 2])
    y = np.repeat([1, 0], 60)
    ours = LinearSVM(learning_rate=0.1, reg=0.1, epochs=400, batch_size=120, learning_rate_decay=0.985).fit(x, y)
    # reg (|w_0|^2 + |w_1|^2) with w_1 = -w_0 = w / 2 is reg |w|^2 / 2; theirs is |w|^2 / 2 + C sum of hinges
    theirs = svm.SVC(kernel="linear", C=1 / (0.1 * 120), tol=1e-8).fit(x, y)
    margins = np.where(y == 1, 1, -1) * theirs.decision_function(x)
    best = np.maximum(0, 1 - margins).mean() + 0.1 / 2 * (theirs.coef_**2).sum()
    assert best * (1 - 1e-6) <= ours.objective(x, y) <= 1.02 * best


def test_softmax_reaches_sklearns_solution(rng):
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = rng.standard_normal((90, 3)), rng.integers(0, 3, 90)
    ours = SoftmaxClassifier(0.5, reg=0.05, batch_size=90, epochs=500).fit(x, y)
    theirs = linear_model.LogisticRegression(C=1 / (2 * 0.05 * 90), tol=1e-10, max_iter=1000).fit(x, y)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"learning_rate": -1}, ValueError, "expected learning_rate to be a number"),
        ({"reg": "much"}, TypeError, "expected reg to be a number"),
        ({"penalty": "l3"}, ValueError, "expected penalty to be one of 'l2', 'l1', 'elastic net', got 'l3'"),
        ({"batch_size": 0}, ValueError, "expected batch_size to be an integer >= 1"),
        ({"epochs": 1.5}, TypeError, "expected epochs to be an integer"),
        ({"momentum": 1}, ValueError, "expected momentum to be a number"),
        ({"learning_rate_decay": 0}, ValueError, "expected learning_rate_decay to be a number"),
        ({"random_state": -1}, ValueError, "expected random_state to be an integer >= 0"),
    ],
)
@pytest.mark.parametrize("kind", [LinearSVM, SoftmaxClassifier, TwoLayerClassifier])
def test_parameters_refused(kind, options, error, message):
    with pytest.raises(error, match=f"{kind.__name__}: {message}"):
        kind(**options).fit(np.eye(4), [0, 1, 0, 1])


def test_own_parameters_refused():
    x, y = np.eye(4), [0, 1, 0, 1]
    with pytest.raises(ValueError, match="LinearSVM: expected loss to be one of 'hinge', 'squared hinge', got 'soft'"):
        LinearSVM("soft").fit(x, y)
    with pytest.raises(ValueError, match="TwoLayerClassifier: expected hidden to be an integer >= 1, got 0"):
        TwoLayerClassifier(0).fit(x, y)
    model = LinearSVM(epochs=1).fit(x, y)
    with pytest.raises(ValueError, match=r"LinearSVM: expected shape \(C, H, W\) of 4 features, got \(4,\)"):
        model.templates()
    with pytest.raises(ValueError, match=r"expected shape \(C, H, W\) of 4 features, got \(1, 3, 3\)"):
        model.templates((1, 3, 3))
    assert model.templates((1, 2, 2)).shape == (2, 2, 2, 1)
    with pytest.raises(ValueError, match="LinearSVM: expected labels that fit has seen, got others in y"):
        model.objective(x, [0, 1, 2, 3])


# -- regression ------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [(), (3,)])
def test_linear_regression_is_least_squares(outputs, rng):
    x, y = rng.standard_normal((40, 5)), rng.standard_normal((40, *outputs))
    model = LinearRegression().fit(x, y)
    solved = np.linalg.lstsq(np.hstack([x, np.ones((40, 1))]), y, rcond=None)[0]
    np.testing.assert_allclose(model.coef_, solved[:-1].T, rtol=0, atol=1e-10)
    np.testing.assert_allclose(model.intercept_, solved[-1], rtol=0, atol=1e-10)
    assert model.predict(x).shape == (40, *outputs)
    assert model.rank_ == 5


@pytest.mark.parametrize(("alpha", "fit_intercept"), [(0.0, True), (0.0, False), (2.5, True), (2.5, False)])
def test_regression_against_sklearn(alpha, fit_intercept, rng):
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = rng.standard_normal((40, 5)), rng.standard_normal(40)
    theirs = linear_model.Ridge(alpha, fit_intercept=fit_intercept).fit(x, y)
    ours = LinearRegression(fit_intercept, alpha).fit(x, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=0, atol=1e-9)
    assert ours.intercept_ == pytest.approx(theirs.intercept_, abs=1e-9)
    assert ours.score(x, y) == pytest.approx(theirs.score(x, y), abs=1e-9)


def test_dependent_columns_are_allowed():
    x = np.array([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])
    model = LinearRegression().fit(x, [1.0, 2.0, 3.0])
    assert model.rank_ == 1
    np.testing.assert_allclose(model.predict(x), [1, 2, 3], rtol=0, atol=1e-12)


@pytest.mark.parametrize("degree", [0, 1, 4, 14])
def test_polynomial_against_numpy(degree, rng):
    x, y = rng.uniform(3, 5, 40), rng.standard_normal(40)
    ours = PolynomialRegression(degree).fit(x, y)
    theirs = np.polynomial.Polynomial.fit(x, y, degree)
    np.testing.assert_allclose(ours.predict(x), theirs(x), rtol=0, atol=1e-8)
    assert ours.coef_.shape == (degree + 1,)
    np.testing.assert_array_equal(ours.predict(x[:, None]), ours.predict(x))
    if degree < 5:
        np.testing.assert_allclose(np.polynomial.polynomial.polyval(x, ours.coef_), ours.predict(x), rtol=0, atol=1e-8)


def test_polynomial_edges():
    constant = PolynomialRegression(0).fit([1.0, 2.0], [3.0, 5.0])
    assert constant.predict([9.0]).item() == pytest.approx(4)
    assert PolynomialRegression(2).fit([2.0, 2.0], [1.0, 3.0]).predict([2.0]).item() == pytest.approx(2)
    with pytest.raises(ValueError, match="PolynomialRegression: expected degree to be an integer >= 0, got -1"):
        PolynomialRegression(-1).fit([1.0], [1.0])
    with pytest.raises(ValueError, match="PolynomialRegression: expected x with 1 features"):
        PolynomialRegression(1).fit(np.ones((3, 2)), [1, 2, 3])
    with pytest.raises(ValueError, match=r"PolynomialRegression: expected y of shape \(3,\), got shape \(3, 1\)"):
        PolynomialRegression(1).fit(np.ones(3), np.ones((3, 1)))


def test_score_of_constant_targets():
    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
    assert model.score([[2.0], [2.0]], [2.0, 2.0]) == pytest.approx(1) or model.score([[2.0], [2.0]], [2.0, 2.0]) == 0
    assert model.score([[0.0], [1.0]], [5.0, 5.0]) == 0
