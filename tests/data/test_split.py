"""Splits and folds: every sample once, classes in proportion, the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnx.data import k_fold, split, split_indices


def test_split_of_arrays():
    x, y = np.arange(40).reshape(20, 2), np.arange(20)
    (xa, ya), (xb, yb), (xc, yc) = split(x, y, sizes=(0.5, 0.25, 0.25), seed=3)
    assert (len(xa), len(xb), len(xc)) == (10, 5, 5)
    assert sorted([*ya, *yb, *yc]) == list(range(20))
    np.testing.assert_array_equal(xa[:, 0], 2 * ya)
    one, two = split(y, sizes=(15, 5), shuffle=False)
    assert one.tolist() == list(range(15)) and two.tolist() == list(range(15, 20))
    np.testing.assert_array_equal(split(y, seed=3)[1], split(y, seed=3)[1])
    assert split(y, seed=3)[1].tolist() != split(y, seed=4)[1].tolist()


@given(
    st.lists(st.integers(0, 4), min_size=4, max_size=60),
    st.lists(st.integers(1, 10), min_size=1, max_size=4),
    st.booleans(),
    st.integers(0, 5),
)
@settings(deadline=None)
def test_stratified_split(labels, weights, shuffle, seed):
    labels, n = np.array(labels), len(labels)
    fractions = np.array(weights) / sum(weights)
    try:
        parts = split_indices(n, fractions, stratify=labels, shuffle=shuffle, seed=seed)
    except ValueError as error:
        assert "expected at least one sample in each part" in str(error)
        return
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(n))
    for part, f in zip(parts, fractions, strict=True):
        assert (np.diff(part) > 0).all()
        assert abs(len(part) - f * n) <= 1
        got = np.bincount(labels[part], minlength=5)
        # Each end of a part may cut a class one sample off its share.
        assert (np.abs(got - f * np.bincount(labels, minlength=5)) <= 2).all()


def test_stratified_split_is_exact_where_it_can_be():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    train, validation, test = split_indices(100, (0.6, 0.2, 0.2), stratify=labels)
    assert np.bincount(labels[train]).tolist() == [30, 18, 12]
    assert np.bincount(labels[validation]).tolist() == [10, 6, 4]
    assert np.bincount(labels[test]).tolist() == [10, 6, 4]
    # A class of one sample goes where most of its share lies.
    lonely = np.array([0] + [1] * 9)
    assert 0 in split_indices(10, (0.8, 0.2), stratify=lonely)[0]
    assert 0 in split_indices(10, (0.2, 0.8), stratify=lonely)[1]
    names = np.array(["a", "b"])[labels % 2]
    assert len(split_indices(100, stratify=names)[1]) == 20


@pytest.mark.parametrize(
    ("n", "sizes", "text"),
    [
        (10, (0.5, 0.4), r"sizes that add up to 1 or to 10, got \[0\.5, 0\.4\]"),
        (10, (5, 4), r"sizes that add up to 10, got \[5, 4\] \(sum 9\)"),
        (10, (), "add up to 1 or to 10, got"),
        (10, (1.5, -0.5), r"size as a fraction to be a number in \[0, inf\), got -0\.5"),
        (10, (11, -1), r"size to be a number in \[0, inf\), got -1"),
        (10, (0.99, 0.01), "at least one sample in each part, got none in part 1"),
        (0, (0.8, 0.2), "at least one sample in each part, got none in part 0"),
        (10, (np.nan, 0.2), "size as a fraction to be a number"),
        (-1, (0.8, 0.2), "n to be an integer >= 0, got -1"),
    ],
)
def test_split_errors(n, sizes, text):
    with pytest.raises(ValueError, match=f"split: expected .*{text}"):
        split_indices(n, sizes)


def test_more_split_errors():
    with pytest.raises(TypeError, match="split: expected at least one array, got none"):
        split()
    with pytest.raises(ValueError, match=r"split: expected arrays of equal length, got .*\(4,\)"):
        split(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match=r"expected stratify to hold 3 labels, got shape \(4,\)"):
        split(np.zeros(3), stratify=np.zeros(4))


# ------------------------------------------------------------------------------------------ folds


@pytest.mark.parametrize(("n", "k"), [(10, 5), (23, 5), (7, 7), (5, 2)])
def test_folds_are_those_of_scikit_learn(n, k):
    selection = pytest.importorskip("sklearn.model_selection")
    theirs = selection.KFold(k).split(np.zeros(n))
    for (train, validation), (their_train, their_validation) in zip(k_fold(n, k), theirs, strict=True):
        np.testing.assert_array_equal(train, their_train)
        np.testing.assert_array_equal(validation, their_validation)


@given(
    st.lists(st.integers(0, 3), min_size=2, max_size=50),
    st.integers(2, 8),
    st.booleans(),
    st.booleans(),
    st.integers(0, 5),
)
@settings(deadline=None)
def test_every_sample_is_in_one_fold(labels, k, stratified, shuffle, seed):
    labels, n = np.array(labels), len(labels)
    if n < k:
        return
    folds = k_fold(n, k, stratify=labels if stratified else None, shuffle=shuffle, seed=seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([v for _, v in folds])), np.arange(n))
    for train, validation in folds:
        assert (np.diff(validation) > 0).all() and (np.diff(train) > 0).all()
        np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), np.arange(n))
        assert len(validation) in (n // k, -(-n // k))
        if stratified:
            share = np.bincount(labels, minlength=4) * len(validation) / n
            assert (np.abs(np.bincount(labels[validation], minlength=4) - share) <= 2).all()


def test_folds_are_stratified_exactly_where_they_can_be():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    for _, validation in k_fold(100, 5, stratify=labels, shuffle=True):
        assert np.bincount(labels[validation]).tolist() == [10, 6, 4]


def test_shuffled_folds_depend_on_the_seed():
    def first(seed):
        return k_fold(40, 4, shuffle=True, seed=seed)[0][1].tolist()

    assert first(1) == first(1) != first(2)
    assert k_fold(40, 4, seed=1)[0][1].tolist() == list(range(10))


def test_fold_errors():
    with pytest.raises(ValueError, match="k_fold: expected k to be an integer >= 2, got 1"):
        k_fold(10, 1)
    with pytest.raises(ValueError, match="k_fold: expected at least one sample for each of 5 folds, got n=4"):
        k_fold(4, 5)
    with pytest.raises(ValueError, match=r"k_fold: expected stratify to hold 4 labels, got shape \(3,\)"):
        k_fold(4, 2, stratify=[0, 1, 0])
    with pytest.raises(TypeError, match="k_fold: expected n to be an integer"):
        k_fold(np.zeros((4, 2)))
