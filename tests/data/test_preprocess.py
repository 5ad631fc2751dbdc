"""Preprocessing against NumPy and scikit-learn, and its edge cases."""

import numpy as np
import pytest

from nnx.data import (
    PCA,
    Center,
    Compose,
    Normalize,
    Standardize,
    channel_stats,
    mean_image,
    one_hot,
    preprocess,
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


# ---------------------------------------------------------------------------------- centring, PCA


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_center(dtype):
    x = to_float(IMAGES, dtype=dtype)
    before = x.copy()
    image, channel = Center().fit(x), Center("channel").fit(x)
    assert image.mean.shape == (3, 4, 5) and channel.mean.shape == (3,)
    tolerance = 1e-6 if dtype == np.float32 else 1e-15
    np.testing.assert_allclose(image(x).mean(axis=0), 0, atol=tolerance)
    np.testing.assert_allclose(channel(x).mean(axis=(0, 2, 3)), 0, atol=tolerance)
    np.testing.assert_array_equal(channel(x), Normalize(channel.mean)(x))
    for center in (image, channel):
        assert center(x).dtype == dtype
        np.testing.assert_allclose(center.inverse(center(x)), x, atol=tolerance)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(Compose([to_float, Center().fit(to_float(IMAGES))])(IMAGES, None).shape, x.shape)
    assert repr(channel) == "Center(per='channel', fitted=True)"


def test_center_errors():
    with pytest.raises(ValueError, match="Center: expected per to be one of 'position', 'channel', got 'pixel'"):
        Center("pixel")
    with pytest.raises(RuntimeError, match=r"Center: expected fit\(x\) before the call, got no mean"):
        Center()(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"Center: expected samples of shape \(3, 4, 5\) as in fit, got \(3, 4\)"):
        Center().fit(IMAGES)(np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match=r"Center: expected x with 3 channels .* got shape \(2, 4\)"):
        Center("channel").fit(IMAGES)(np.zeros((2, 4)))
    with pytest.raises(TypeError, match="Center: expected x to hold floats, got uint8"):
        Center().fit(IMAGES)(IMAGES)
    with pytest.raises(ValueError, match="Center: expected x of shape"):
        Center().fit(np.zeros((0, 3)))


def mixed(n=200, columns=5):
    """Correlated columns of very different size."""
    rng = np.random.default_rng(3)
    return rng.standard_normal((n, columns)) @ rng.standard_normal((columns, columns)) * 3 + rng.standard_normal(
        columns
    )


def test_pca_decorrelates_and_whitens():
    x = mixed()
    before = x.copy()
    pca, white = PCA().fit(x), PCA(whiten=True).fit(x)
    # 200 samples in float64: the covariance is exact to some 1e-14 of its largest entry
    np.testing.assert_allclose(np.cov(pca(x).T), np.diag(pca.variance), atol=1e-10)
    np.testing.assert_allclose(np.cov(white(x).T), np.eye(5), atol=1e-10)
    assert (np.diff(pca.variance) < 0).all()
    np.testing.assert_allclose(pca.components @ pca.components.T, np.eye(5), atol=1e-12)
    for fitted in (pca, white):
        np.testing.assert_allclose(fitted.inverse(fitted(x)), x, atol=1e-10)
        assert fitted(x.astype(np.float32)).dtype == np.float32
    np.testing.assert_array_equal(x, before)
    assert repr(white) == "PCA(n_components=None, whiten=True, fitted=True)"


def test_pca_keeps_the_largest_directions():
    x = mixed(columns=6)
    whole, part = PCA().fit(x), PCA(2).fit(x)
    np.testing.assert_allclose(part(x), whole(x)[:, :2], rtol=1e-12)
    lost = ((part.inverse(part(x)) - x) ** 2).sum() / (len(x) - 1)
    np.testing.assert_allclose(lost, whole.variance[2:].sum(), rtol=1e-10)


@pytest.mark.parametrize("block", [1, 70, 1 << 20])
def test_pca_of_images_reads_in_blocks(monkeypatch, block):
    monkeypatch.setattr(preprocess, "_BLOCK", block)
    x = to_float(IMAGES, dtype="float64")
    pca = PCA(4).fit(IMAGES)
    assert pca(x).shape == (9, 4) and pca.inverse(pca(x)).shape == x.shape
    np.testing.assert_allclose(pca.variance, PCA(4).fit(x * 255).variance, rtol=1e-10)


def test_whitening_leaves_directions_without_variance_at_zero():
    x = mixed(50, 3)
    x = np.column_stack([x, np.full(50, 7.0), x[:, 0] + x[:, 1]])  # a constant column, a dependent one
    white = PCA(whiten=True).fit(x)
    y = white(x)
    np.testing.assert_allclose(np.cov(y.T), np.diag([1, 1, 1, 0, 0]), atol=1e-10)
    np.testing.assert_allclose(white.inverse(y), x, atol=1e-10)
    constant = PCA(whiten=True).fit(np.ones((4, 2)))
    assert (constant(np.full((1, 2), 3.0)) == 0).all()


def test_pca_equals_scikit_learn():
    decomposition = pytest.importorskip("sklearn.decomposition")
    x = mixed()
    for whiten in (False, True):
        theirs = decomposition.PCA(3, whiten=whiten).fit(x)
        ours = PCA(3, whiten).fit(x)
        sign = np.sign((theirs.components_ * ours.components).sum(axis=1))
        np.testing.assert_allclose(ours.components, theirs.components_ * sign[:, None], atol=1e-10)
        np.testing.assert_allclose(ours.variance, theirs.explained_variance_, rtol=1e-10)
        np.testing.assert_allclose(ours(x), theirs.transform(x) * sign, atol=1e-9)


def test_pca_errors():
    x = mixed(10, 3)
    with pytest.raises(RuntimeError, match=r"PCA: expected fit\(x\) before the call"):
        PCA()(x)
    with pytest.raises(ValueError, match=r"PCA: expected x of at least 2 samples, got shape \(1, 3\)"):
        PCA().fit(x[:1])
    with pytest.raises(ValueError, match=r"PCA: expected n_components of at most 3 \(the columns of x\), got 4"):
        PCA(4).fit(x)
    with pytest.raises(ValueError, match="PCA: expected n_components to be an integer >= 1, got 0"):
        PCA(0)
    with pytest.raises(ValueError, match="PCA: expected x without NaN and infinity"):
        PCA().fit([[1.0, np.nan], [2.0, 3.0]])
    with pytest.raises(ValueError, match=r"PCA: expected samples of shape \(3,\) as in fit, got \(2,\)"):
        PCA().fit(x)(x[:, :2])
    with pytest.raises(ValueError, match=r"PCA: expected y of shape \(N, 2\), got shape \(10, 3\)"):
        PCA(2).fit(x).inverse(x)
    with pytest.raises(TypeError, match="PCA: expected x to hold floats, got int64"):
        PCA().fit(x)(np.ones((2, 3), int))


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
