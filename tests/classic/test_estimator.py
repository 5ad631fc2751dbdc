"""What all estimators share: parameters, refusals, copies."""

from __future__ import annotations

import numpy as np
import pytest

from nnx import classic

CLASSIFIERS = [
    classic.KNeighborsClassifier(3),
    classic.Perceptron(5),
    classic.LinearSVM(epochs=2),
    classic.SoftmaxClassifier(epochs=2),
    classic.TwoLayerClassifier(epochs=2),
    classic.MarkOne(side=2, association=8, connections=2, threshold=1),
]
REGRESSORS = [classic.LinearRegression(), classic.PolynomialRegression(2)]
EVERY = [*CLASSIFIERS, *REGRESSORS, classic.Hebb()]
each_classifier = pytest.mark.parametrize("model", CLASSIFIERS, ids=lambda m: type(m).__name__)
each = pytest.mark.parametrize("model", EVERY, ids=lambda m: type(m).__name__)


@pytest.fixture
def bits(rng):
    return rng.integers(0, 2, (60, 4)).astype(np.float32), np.repeat([3, 5], 30)


@each
def test_parameters(model):
    params = model.get_params()
    again = type(model)(**params)
    assert again.get_params() == params
    assert repr(again) == repr(model)
    name, value = next(iter(params.items()))
    assert again.set_params(**{name: "anything"}) is again  # stored as it is, checked by fit
    assert again.get_params()[name] == "anything" and model.get_params()[name] == value


@each
def test_unknown_parameters_change_nothing(model):
    before = model.get_params()
    name = next(iter(before))
    with pytest.raises(
        ValueError, match=rf"{type(model).__name__}: expected parameters among .*{name}.*, got nonsense"
    ):
        model.set_params(nonsense=1, **{name: 17})
    assert model.get_params() == before


@each
def test_sklearn_clones_it(model):
    clone = pytest.importorskip("sklearn.base").clone
    assert clone(model).get_params() == model.get_params()


@pytest.mark.parametrize("model", EVERY[:5] + REGRESSORS[:1], ids=lambda m: type(m).__name__)
def test_sklearns_tools_take_it(model, bits):
    selection = pytest.importorskip("sklearn.model_selection")
    pipeline = pytest.importorskip("sklearn.pipeline")
    from sklearn.preprocessing import StandardScaler

    x, y = bits
    scores = selection.cross_val_score(model, x, y, cv=3)
    folds = selection.StratifiedKFold(3) if model._estimator_type == "classifier" else selection.KFold(3)
    for score, (train, held) in zip(scores, folds.split(x, y), strict=True):
        assert score == type(model)(**model.get_params()).fit(x[train], y[train]).score(x[held], y[held])
    name, value = next(iter(model.get_params().items()))
    search = selection.GridSearchCV(model, {name: [value]}, cv=2).fit(x, y)
    assert search.best_params_ == {name: value}
    assert pipeline.make_pipeline(StandardScaler(), model).fit(x, y).predict(x).shape == (60,)


@each
def test_nothing_is_predicted_before_fit(model):
    new = type(model)(**model.get_params())
    with pytest.raises(AttributeError, match=rf"{type(model).__name__}: expected fit to be called first"):
        new.predict(np.ones((2, 4)) if type(model) is not classic.PolynomialRegression else np.ones(2))


@each_classifier
@pytest.mark.parametrize("names", [["no", "yes"], [True, False], [-1, 1], [2.0, 7.0]], ids=str)
def test_labels_of_any_kind(model, names, bits):
    x, y = bits
    y = np.where(y == 3, *names)
    model.fit(x, y)
    assert model.classes_.tolist() == sorted(names)
    assert model.predict(x).dtype == model.classes_.dtype
    assert 0 <= model.score(x, y) <= 1


@each_classifier
def test_fit_leaves_the_data_alone_and_keeps_nothing_of_it(model, bits):
    x, y = bits
    kept = x.copy()
    x.flags.writeable = False
    model.fit(x, y)
    np.testing.assert_array_equal(x, kept)
    before = model.predict(kept)
    x.flags.writeable = True
    x[...] = 0
    np.testing.assert_array_equal(model.predict(kept), before)


@each_classifier
def test_layouts_do_not_matter(model, bits):
    x, y = bits
    expected = model.fit(x, y).predict(x)
    strided = np.zeros((60, 8), np.float32)[:, ::2]
    strided[...] = x
    for same in (np.asfortranarray(x), strided, x[::-1][::-1]):
        np.testing.assert_array_equal(model.fit(same, y).predict(same), expected)
    np.testing.assert_array_equal(model.fit(x.reshape(60, 1, 2, 2), y).predict(x), expected)


@each_classifier
@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (np.ones(4), [1], ValueError, r"expected x of shape \(N, features\) .* got shape \(4,\)"),
        (np.ones((0, 4)), [], ValueError, r"expected x of shape .* with N >= 1, got shape \(0, 4\)"),
        ([["a"]], [1], TypeError, "expected x to be an array of numbers, got <U1"),
        ([[np.nan, 0, 0, 0]], [1], ValueError, "expected finite numbers in x, got NaN or infinity"),
        (np.ones((4, 4)), [1, 2], ValueError, r"expected y of shape \(4,\), a label for each sample, got shape \(2,\)"),
        (np.ones((2, 4)), [0.5, 1], TypeError, "expected y to be labels .* got float64"),
    ],
)
def test_data_refused(model, x, y, error, message):
    with pytest.raises(error, match=rf"{type(model).__name__}: {message}"):
        type(model)(**model.get_params()).fit(x, y)


@each_classifier
def test_other_features_than_in_fit(model, bits):
    model.fit(*bits)
    message = rf"{type(model).__name__}: expected x with 4 features as in fit, got shape \(2, 5\)"
    with pytest.raises(ValueError, match=message):
        model.predict(np.ones((2, 5)))


@pytest.mark.parametrize("model", CLASSIFIERS[1:], ids=lambda m: type(m).__name__)
def test_one_class_is_none(model):
    with pytest.raises(ValueError, match="expected y with at least 2 classes, got 1"):
        model.fit(np.ones((3, 4)), [1, 1, 1])


def test_a_failed_fit_changes_nothing(bits):
    x, y = bits
    model = classic.LinearSVM(epochs=2).fit(x, y)
    before = model.coef_.copy()
    with pytest.raises(ValueError, match="x_val and y_val together"):
        model.fit(x, y, x)
    model.set_params(batch_size=0)
    with pytest.raises(ValueError, match="LinearSVM: expected batch_size to be an integer >= 1, got 0"):
        model.fit(x + 1, y)
    np.testing.assert_array_equal(model.coef_, before)


@pytest.mark.parametrize("model", REGRESSORS, ids=repr)
def test_regressors_refuse(model):
    x = np.ones((3, 1))
    owner = type(model).__name__
    with pytest.raises(TypeError, match=f"{owner}: expected y to be an array of numbers"):
        model.fit(x, ["a", "b", "c"])
    with pytest.raises(ValueError, match=rf"{owner}: expected y of shape \(3,\)"):
        model.fit(x, [1, 2])
    with pytest.raises(ValueError, match=f"{owner}: expected finite numbers in y"):
        model.fit(x, [1, 2, np.inf])
