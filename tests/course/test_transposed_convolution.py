"""Transposed convolution is the transposed map, and equals PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest

import nnx.functional as F
from nnx.autograd import Tensor
from nnx.course import transposed_convolution
from nnx.course.transposed_convolution import as_matrix, coverage, inner_products

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0)])
def test_F167_is_the_adjoint(stride, padding):
    left, right = inner_products(stride, padding)
    assert left == pytest.approx(right, rel=1e-12)


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1)])
def test_F167_is_the_product_with_the_transposed_matrix(stride, padding):
    w = RNG.standard_normal((3, 2, 3, 3))
    a = as_matrix(w, (2, 5, 5), stride, padding)
    n = round((a.shape[0] / 3) ** 0.5)
    y = RNG.standard_normal((1, 3, n, n))
    expected = (a.T @ y.ravel()).reshape(1, 2, 5, 5)
    np.testing.assert_allclose(F.conv_transpose2d(y, w, None, stride, padding).data, expected, atol=1e-12)


def test_F167_is_the_gradient_of_a_convolution():
    x, w = Tensor(RNG.standard_normal((2, 3, 9, 9)), requires_grad=True), RNG.standard_normal((4, 3, 3, 3))
    y = F.conv2d(x, w, stride=2, padding=1)
    gy = RNG.standard_normal(y.shape)
    y.backward(gy)
    np.testing.assert_allclose(x.grad, F.conv_transpose2d(gy, w, stride=2, padding=1).data, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"stride": 2, "padding": 1, "output_padding": 1}])
def test_F167_equals_torch(options):
    torch = pytest.importorskip("torch")
    x, w, b = RNG.standard_normal((2, 4, 5, 6)), RNG.standard_normal((4, 3, 3, 3)), RNG.standard_normal(3)
    theirs = torch.nn.functional.conv_transpose2d(*map(torch.tensor, (x, w, b)), **options).numpy()
    np.testing.assert_allclose(F.conv_transpose2d(x, w, b, **options).data, theirs, atol=1e-10)


def test_F167_coverage_is_even_where_the_stride_divides_the_filter():
    assert set(coverage(4, 2)[4:-4, 4:-4].ravel()) == {4.0}
    assert set(coverage(3, 2)[3:-3, 3:-3].ravel()) == {1.0, 2.0, 4.0}
    assert transposed_convolution.run(small=True)["coverage 3x3"] == [1, 2, 4]
