"""Centring, standardising, PCA, whitening, means of images."""

from __future__ import annotations

import numpy as np
import pytest

from nnx.course import preprocessing
from nnx.data import PCA, Center, Standardize, channel_stats, mean_image

RNG = np.random.default_rng(0)


def test_F110_zero_mean_and_unit_deviation_with_a_constant_column():
    x = RNG.standard_normal((200, 4)) * [1, 100, 1e-3, 0] + [5, -3, 0, 7]
    y = Standardize().fit(x)(x)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(y[:, :3].std(axis=0), 1, rtol=1e-12)
    assert (y[:, 3] == 0).all()
    np.testing.assert_allclose(Center().fit(x)(x), x - x.mean(axis=0), atol=1e-12)


def test_F110_equals_scikit_learn():
    scaler = pytest.importorskip("sklearn.preprocessing").StandardScaler
    x = RNG.standard_normal((50, 3)) * [1, 10, 0] + [0, 5, 2]
    np.testing.assert_allclose(Standardize().fit(x)(x), scaler().fit_transform(x), atol=1e-10)


def test_F110_dividing_by_the_variance_is_wrong():
    """X18: with a deviation of 64 the printed formula leaves 1/64."""
    x = RNG.standard_normal((10_000, 1))
    x = (x - x.mean()) / x.std() * 64
    assert np.std(x / x.std() ** 2) == pytest.approx(1 / 64, rel=1e-12)
    assert Standardize().fit(x)(x).std() == pytest.approx(1, rel=1e-12)


def test_F111_covariance_becomes_diagonal_and_then_the_identity():
    x = preprocessing.cloud(500, RNG)
    steps = preprocessing.steps(x)
    assert abs(np.cov(x.T)[0, 1]) > 1
    assert abs(np.cov(steps["decorrelated"].T)[0, 1]) < 1e-10
    np.testing.assert_allclose(np.cov(steps["whitened"].T), np.eye(2), atol=1e-10)


def test_F111_equals_scikit_learn_up_to_sign():
    theirs = pytest.importorskip("sklearn.decomposition").PCA()
    x = RNG.standard_normal((80, 5)) @ RNG.standard_normal((5, 5))
    y, expected = PCA().fit(x)(x), theirs.fit_transform(x)
    np.testing.assert_allclose(np.abs(y), np.abs(expected), atol=1e-10)


def test_F112_mean_image_and_channel_means():
    nhwc = RNG.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    assert mean_image(nhwc).shape == (32, 32, 3)
    nchw = nhwc.transpose(0, 3, 1, 2)
    assert channel_stats(nchw)[0].shape == (3,)
    np.testing.assert_allclose(channel_stats(nchw)[0], nhwc.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(mean_image(nchw), nhwc.mean(axis=0).transpose(2, 0, 1), rtol=1e-12)


def test_F112_the_topic_reports_the_shapes():
    result = preprocessing.run(small=True)
    assert (result["mean_image"], result["channel_mean"]) == ([3, 32, 32], [3])
