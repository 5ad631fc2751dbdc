"""True convolution against its definition and against SciPy."""

import numpy as np
import pytest

from nnx import functional as F

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("mode", "padding"), [("full", (2, 3)), ("valid", 0)])
def test_equals_scipy(mode, padding):
    signal = pytest.importorskip("scipy.signal")
    x, g = RNG.standard_normal((7, 9)), RNG.standard_normal((3, 4))
    y = F.true_conv2d(x[None, None], g[None, None], padding=padding).data[0, 0]
    np.testing.assert_allclose(y, signal.convolve2d(x, g, mode), atol=1e-12)


def test_one_dimension_equals_numpy():
    x, g = RNG.standard_normal(11), RNG.standard_normal(4)
    y = F.true_conv1d(x[None, None], g[None, None], padding=3).data[0, 0]
    np.testing.assert_allclose(y, np.convolve(x, g), atol=1e-12)


def test_commutes_where_cross_correlation_does_not():
    a, b = RNG.standard_normal((1, 1, 5, 5)), RNG.standard_normal((1, 1, 5, 5))
    np.testing.assert_allclose(F.true_conv2d(a, b, padding=4).data, F.true_conv2d(b, a, padding=4).data, atol=1e-12)
    assert not np.allclose(F.conv2d(a, b, padding=4).data, F.conv2d(b, a, padding=4).data)


def test_agrees_with_conv2d_on_a_symmetric_filter():
    x, g = RNG.standard_normal((2, 3, 6, 6)), RNG.standard_normal((4, 3, 3, 3))
    g = g + g[:, :, ::-1, ::-1]
    np.testing.assert_allclose(F.true_conv2d(x, g).data, F.conv2d(x, g).data, atol=1e-12)


def test_errors():
    with pytest.raises(ValueError, match=r"true_conv2d: expected weight with 4 dimensions, got shape \(3, 3\)"):
        F.true_conv2d(np.zeros((1, 1, 5, 5)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="true_conv2d: expected input with 2 channels"):
        F.true_conv2d(np.zeros((1, 1, 5, 5)), np.zeros((1, 2, 3, 3)))
