"""Preprocessing against NumPy and scikit-learn, and its edge cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnx.data import (
    Compose,
    Normalize,
    Standardize,
    channel_stats,
    mean_image,
    one_hot,
    preprocess,
    split,
    split_indices,
    to_float,
)

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (9, 3, 4, 5), dtype=np.uint8)


# ------------------------------------------------------------------------------------- scaling


def test_to_float():
    x = to_float(IMAGES)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, IMAGES / np.float32(255))
    assert to_float(np.array([0, 65535], np.uint16)).tolist() == [0, 1]
    source = np.array([0.5, 300.0])
    result = to_float(source, dtype="float64")
    assert result.tolist() == [0.5, 300] and not np.shares_memory(source, result)
    with pytest.raises(TypeError, match="to_float: expected x to hold floats or unsigned .* int64"):
        to_float([1, 2])
    with pytest.raises(TypeError, match="to_float: expected dtype to be float32 or float64"):
        to_float(IMAGES, dtype="uint8")


@pytest.mark.parametrize("block", [1, 70, 1 << 20])
def test_statistics(monkeypatch, block):
    monkeypatch.setattr(preprocess, "_BLOCK", block)
    mean, std = channel_stats(IMAGES)
    # Sums of at most 180 float64 values in another order: some 1e-14 relative.
    np.testing.assert_allclose(mean, IMAGES.mean(axis=(0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(std, IMAGES.std(axis=(0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(mean_image(IMAGES), IMAGES.mean(axis=0), rtol=1e-13)
    assert mean.dtype == std.dtype == mean_image(IMAGES).dtype == np.float64
    table = RNG.standard_normal((20, 3))
    np.testing.assert_allclose(channel_stats(table)[1], table.std(axis=0), rtol=1e-13)


def test_statistics_of_a_large_mean_in_float32():
    # Sums in float32 would lose all of this spread.
    x = (10_000 + RNG.standard_normal((5000, 1, 2, 2))).astype(np.float32)
    np.testing.assert_allclose(channel_stats(x)[1], x.astype(np.float64).std(), rtol=1e-10)


@pytest.mark.parametrize("function", [channel_stats, mean_image])
def test_statistics_need_samples(function):
    for x in (np.zeros((0, 3, 2, 2)), np.zeros(5)):
        with pytest.raises(ValueError, match=rf"{function.__name__}: expected x of shape \(N, C"):
            function(x)


def test_normalize():
    x = to_float(IMAGES)
    before = x.copy()
    mean, std = channel_stats(x)
    normalize = Normalize(mean, std)
    y = normalize(x)
    assert y.dtype == np.float32 and normalize(x.astype(np.float64)).dtype == np.float64
    new_mean, new_std = channel_stats(y)
    np.testing.assert_allclose(new_mean, 0, atol=1e-6)  # float32
    np.testing.assert_allclose(new_std, 1, rtol=1e-6)
    np.testing.assert_allclose(normalize.inverse(y), x, atol=1e-6)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_allclose(Normalize(mean_image(x))(x).mean(axis=0), 0, atol=1e-6)
    np.testing.assert_array_equal(Normalize(0.5, 0.25)(x), (x - np.float32(0.5)) * 4)
    np.testing.assert_array_equal(Compose([to_float, normalize])(IMAGES, None), y)
    assert repr(Normalize(0.5, 2)) == "Normalize(mean=0.5, std=2.0)"


def test_normalize_errors():
    with pytest.raises(ValueError, match="Normalize: expected std to be positive, got 0.0"):
        Normalize([0, 0], [1, 0])
    with pytest.raises(ValueError, match="std to be positive, got nan"):
        Normalize(0, np.nan)
    with pytest.raises(TypeError, match=r"Normalize: expected x to hold floats, got uint8\. to_f"):
        Normalize(0.5)(IMAGES)
    with pytest.raises(ValueError, match=r"Normalize: expected mean .* \(3, 4, 5\), got shape \(4,\)"):
        Normalize(np.zeros(4))(to_float(IMAGES))


def test_standardize_equals_scikit_learn():
    scaler = pytest.importorskip("sklearn.preprocessing").StandardScaler
    x = RNG.standard_normal((50, 6)) * [1, 10, 1e-3, 1e5, 1, 1] + [0, 5, 1, 1e3, 7, 0]
    x[:, 4] = 7
    x[:, 5] = 0
    np.testing.assert_allclose(Standardize().fit(x)(x), scaler().fit_transform(x), atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, -1e6, 1e-30, 3.0])
def test_standardize_constant_columns(dtype, value):
    x = RNG.standard_normal((1000, 2)).astype(dtype)
    x[:, 1] = value
    standardize = Standardize().fit(x)
    y = standardize(x)
    assert y.dtype == dtype and np.abs(y[:, 1]).max() <= 1e-9 * max(1, abs(value))
    np.testing.assert_allclose(y[:, 0].std(), 1, rtol=1e-5)
    np.testing.assert_allclose(standardize.inverse(y), x, rtol=1e-5, atol=1e-6)
    noisy = x.copy()
    noisy[::2, 1] = np.nextafter(noisy[::2, 1], dtype(np.inf))  # one rounding is no signal
    assert np.abs(Standardize().fit(noisy)(noisy)[:, 1]).max() < 1e-6 * max(1, abs(value))


def test_standardize_takes_images_and_reports_misuse():
    standardize = Standardize().fit(IMAGES)
    assert standardize(to_float(IMAGES)).shape == IMAGES.shape
    with pytest.raises(RuntimeError, match=r"Standardize: expected fit\(x\) before the call"):
        Standardize()(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"samples of shape \(3, 4, 5\) as in fit, got \(3, 4\)"):
        standardize(np.zeros((2, 3, 4)))
    with pytest.raises(TypeError, match="Standardize: expected x to hold floats, got uint8"):
        standardize(IMAGES)
    with pytest.raises(ValueError, match="Standardize: expected x of shape .* at least one sample"):
        Standardize().fit(np.zeros((0, 3)))


def test_nan_is_passed_on():
    x = np.array([[1.0, np.nan], [2.0, 3.0]])
    y = Standardize().fit(x)(x)
    assert np.isnan(y[:, 1]).all() and not np.isnan(y[:, 0]).any()
    assert np.isnan(channel_stats(x)[0][1])


# --------------------------------------------------------------------------------------- split


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


# ------------------------------------------------------------------------------------- one-hot


def test_one_hot():
    np.testing.assert_array_equal(one_hot([2, 0, 1]), np.eye(3)[[2, 0, 1]])
    assert one_hot([0], 4).shape == (1, 4) and one_hot([0], 4).dtype == np.float32
    assert one_hot([[0, 1], [1, 1]], dtype="float64").shape == (2, 2, 2)
    assert one_hot(np.zeros(0, int), 3).shape == (0, 3)
    assert one_hot(np.array([1, 0], np.uint8)).tolist() == [[0, 1], [1, 0]]


def test_one_hot_errors():
    with pytest.raises(TypeError, match="one_hot: expected labels to be integers, got float64"):
        one_hot([0.0])
    with pytest.raises(ValueError, match=r"one_hot: expected labels in \[0, 3\), got 3"):
        one_hot([0, 3], 3)
    with pytest.raises(ValueError, match=r"labels in \[0, 2\), got -1"):
        one_hot([-1, 1])
    with pytest.raises(ValueError, match="expected num_classes for an empty array"):
        one_hot(np.zeros(0, int))
    with pytest.raises(ValueError, match="num_classes to be an integer >= 1, got 0"):
        one_hot([0], 0)
