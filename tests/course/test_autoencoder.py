"""Autoencoders and PCA."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx.course import autoencoder


def test_F175_linear_autoencoder_equals_pca():
    result = autoencoder.run()
    # the minimum is flat: an angle of a moves the loss by a squared
    assert result["angle"] < 0.05  # degrees; 0.0005 to 0.002 with the seeds 0 to 4
    assert result["linear_mse"] == pytest.approx(result["pca_mse"], rel=1e-7)
    assert result["network_test_mse"] < 0.7 * result["pca_test_mse"]


def test_F175_every_start_leads_to_the_same_plane():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 6)) * [4, 3, 2, 1, 0.5, 0.2] @ np.linalg.qr(rng.standard_normal((6, 6)))[0]
    x -= x.mean(axis=0)
    axes, variances = autoencoder.principal_components(x, 2)
    for seed in range(3):
        nnx.manual_seed(seed)
        model, mse = autoencoder.linear_autoencoder(x, 2)
        assert autoencoder.subspace_angle(axes, model[1].weight.data) < 0.01
        assert mse == pytest.approx(variances[2:].sum() / 6, rel=1e-8)
        # the plane is that of PCA, the axes in it are not
        product = model[1].weight.data @ model[0].weight.data
        np.testing.assert_allclose(product, axes @ axes.T, atol=1e-4)


def test_F175_principal_components_equal_scikit_learn():
    pca = pytest.importorskip("sklearn.decomposition").PCA(3)
    x = np.random.default_rng(0).standard_normal((50, 5))
    x -= x.mean(axis=0)
    axes, variances = autoencoder.principal_components(x, 3)
    pca.fit(x)
    np.testing.assert_allclose(np.abs(axes.T), np.abs(pca.components_), atol=1e-10)
    np.testing.assert_allclose(variances[:3] * 50 / 49, pca.explained_variance_, rtol=1e-10)


def test_F175_angle_between_planes():
    a = np.eye(4)[:, :2]
    assert autoencoder.subspace_angle(a, a @ [[1, 2], [3, 4]]) < 1e-7
    assert autoencoder.subspace_angle(a, np.eye(4)[:, 2:]) == pytest.approx(90)
    tilted = a.copy()
    tilted[:, 1] = np.cos(np.radians(7)) * np.eye(4)[1] + np.sin(np.radians(7)) * np.eye(4)[3]
    assert autoencoder.subspace_angle(a, tilted) == pytest.approx(7)
