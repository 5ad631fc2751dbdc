"""Batch norm and batch renorm against their formulas and PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import nnx.functional as F
from nnx import nn
from nnx.autograd import Tensor
from nnx.course import normalisation
from nnx.testing import gradcheck

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def result():
    return normalisation.run()


def test_F135_batch_formula():
    x = RNG.standard_normal((32, 5)) * 7 + 3
    np.testing.assert_allclose(F.batch_norm(x, None, None, training=True).data, normalisation.normalised(x), atol=1e-12)
    w, b = RNG.standard_normal(5), RNG.standard_normal(5)
    y = F.batch_norm(x, None, None, w, b, training=True).data
    np.testing.assert_allclose(y, normalisation.normalised(x) * w + b, atol=1e-12)


def test_F135_running_statistics_equal_torch():
    """The batch is normalised by the biased variance, the running average takes the unbiased one."""
    torch = pytest.importorskip("torch")
    ours, theirs = nn.BatchNorm1d(5).double(), torch.nn.BatchNorm1d(5).double()
    for _ in range(4):
        x = RNG.standard_normal((8, 5)) * 2 + 1
        np.testing.assert_allclose(ours(x).data, theirs(torch.tensor(x)).detach().numpy(), atol=1e-12)
    np.testing.assert_allclose(ours.running_mean, theirs.running_mean.numpy(), rtol=1e-12)
    np.testing.assert_allclose(ours.running_var, theirs.running_var.numpy(), rtol=1e-12)
    mean, var = np.zeros(1), np.zeros(1)
    F.batch_norm(np.array([[1.0], [3.0]]), mean, var, training=True, momentum=1.0)
    assert (mean.item(), var.item()) == (2.0, 2.0)


def test_F135_a_constant_feature_needs_eps():
    """X17: without eps this is 0/0."""
    y = F.batch_norm(np.full((4, 1), 7.0), None, None, training=True).data
    np.testing.assert_array_equal(y, 0.0)


@pytest.mark.parametrize(("rmax", "dmax"), [(1.0, 0.0), (1.5, 0.3), (3.0, 5.0), (1e9, 1e9)])
def test_F136_renorm_formula(rmax, dmax):
    x = RNG.standard_normal((12, 4)) * [0.2, 1, 3, 9] + [0, 2, -2, 1]
    mean, var = RNG.standard_normal(4), RNG.uniform(0.5, 2, 4)
    expected = normalisation.renormalised(x, mean, var, rmax, dmax)
    y = F.batch_renorm(x, mean.copy(), var.copy(), training=True, rmax=rmax, dmax=dmax).data
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    if rmax == 1.0:
        np.testing.assert_allclose(y, F.batch_norm(x, None, None, training=True).data, atol=1e-12)
    if rmax == 1e9:
        np.testing.assert_allclose(y, F.batch_norm(x, mean, var, training=False).data, rtol=1e-10, atol=1e-12)


def test_F136_r_and_d_are_constants_to_the_gradient():
    x, gy = RNG.standard_normal((7, 3)) * [0.1, 1, 5] + 1, RNG.standard_normal((7, 3))
    mean, var = RNG.standard_normal(3), RNG.uniform(0.5, 2, 3)
    sigma = np.sqrt(var + 1e-5)
    r = np.clip(np.sqrt(x.var(axis=0) + 1e-5) / sigma, 1 / 3, 3)
    d = np.clip((x.mean(axis=0) - mean) / sigma, -5, 5)

    def with_constants(x):
        return F.batch_norm(x, None, None, training=True) * r + d

    gradcheck(with_constants, x)
    ours, other = Tensor(x, requires_grad=True), Tensor(x, requires_grad=True)
    F.batch_renorm(ours, mean.copy(), var.copy(), training=True).backward(gy)
    with_constants(other).backward(gy)
    np.testing.assert_allclose(ours.grad, other.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("layer", "shape"), [("1d", (6, 3)), ("2d", (4, 3, 2, 5)), ("3d", (4, 3, 2, 2, 2))])
def test_F136_layers_in_one_two_and_three_dimensions(layer, shape):
    x = RNG.standard_normal(shape) * 2 + 1
    renorm = getattr(nn, f"BatchRenorm{layer}")(3, rmax=1, dmax=0).double()
    norm = getattr(nn, f"BatchNorm{layer}")(3).double()
    np.testing.assert_allclose(renorm(x).data, norm(x).data, atol=1e-12)
    np.testing.assert_array_equal(renorm.running_var, norm.running_var)
    renorm.eval(), norm.eval()
    np.testing.assert_array_equal(renorm(x).data, norm(x).data)


def test_F135_a_deep_sigmoid_network_learns_with_batch_norm_only(result):
    assert result["with batch norm"] > 0.9 > result["without batch norm"] + 0.1


def test_F136_renorm_copes_with_batches_of_one_class(result):
    # 0.04 to 0.09 against 0.35 to 0.64 for three seeds
    assert result["batch norm, one class per batch"] < 0.2 < result["batch renorm, one class per batch"] - 0.05
