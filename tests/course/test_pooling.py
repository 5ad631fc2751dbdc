"""Maximum, mean and sum pooling and their gradients."""

from __future__ import annotations

import numpy as np
import pytest

import nnx.functional as F
from nnx import nn
from nnx.autograd import Tensor
from nnx.course.pooling import SLICE, gradient, pooled

RNG = np.random.default_rng(0)


def test_F151_max_pool_of_the_slice():
    assert pooled(SLICE).tolist() == [[6, 8], [3, 4]]  # N21
    assert nn.MaxPool2d(2)(SLICE[None, None]).data[0, 0].tolist() == [[6, 8], [3, 4]]


def test_F151_three_by_three_with_stride_two():
    x = np.arange(49.0).reshape(7, 7)
    assert pooled(x, "max", 3, 2).tolist() == [[16, 18, 20], [30, 32, 34], [44, 46, 48]]


def test_F152_average_and_sum_of_the_slice():
    assert pooled(SLICE, "average").tolist() == [[3.25, 5.25], [2, 2]]
    assert pooled(SLICE, "sum").tolist() == [[13, 21], [8, 8]]
    assert nn.SumPool2d(2)(SLICE[None, None]).data[0, 0].tolist() == [[13, 21], [8, 8]]


def test_F152_sum_equals_torch_lp_pool_of_order_1():
    torch = pytest.importorskip("torch")
    x = RNG.uniform(0, 1, (2, 3, 7, 6))  # the p-norm has no signs
    expected = torch.nn.functional.lp_pool2d(torch.tensor(x), 1, 3, 2).numpy()
    np.testing.assert_allclose(F.sum_pool2d(x, 3, 2).data, expected, atol=1e-10)


def test_F152_global_pools():
    x = RNG.standard_normal((2, 3, 5, 4))
    np.testing.assert_allclose(nn.AdaptiveAvgPool2d(1)(x).data[..., 0, 0], x.mean(axis=(2, 3)), atol=1e-12)
    np.testing.assert_allclose(F.sum_pool2d(x, (5, 4)).data[..., 0, 0], x.sum(axis=(2, 3)), atol=1e-12)
    np.testing.assert_array_equal(F.max_pool2d(x, (5, 4)).data[..., 0, 0], x.max(axis=(2, 3)))


def test_F153_gradient_goes_to_the_maximum():
    assert gradient(SLICE).tolist() == [[0, 0, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 1]]


def test_F153_of_equal_numbers_the_first_gets_it():
    assert gradient(np.full((2, 2), 5.0)).tolist() == [[1, 0], [0, 0]]
    assert gradient(np.array([[1.0, 5.0], [5.0, 5.0]])).tolist() == [[0, 1], [0, 0]]


def test_F153_nan_is_the_largest():
    x = SLICE.copy()
    x[0, 0] = np.nan
    assert np.isnan(pooled(x)[0, 0])
    assert gradient(x)[0, 0] == 1 and gradient(x)[1, 1] == 0


@pytest.mark.parametrize(("size", "stride"), [(2, 1), (3, 1), (3, 2)])
def test_F153_overlapping_windows_lose_no_gradient(size, stride):
    x = RNG.standard_normal((9, 9))
    assert gradient(x, "max", size, stride).sum() == pooled(x, "max", size, stride).size


@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 1), (3, 2)])
def test_F153_gradient_equals_torch(size, stride):
    torch = pytest.importorskip("torch")
    x = RNG.integers(0, 4, (2, 3, 9, 9)).astype(float)  # many ties
    ours, theirs = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y = F.max_pool2d(ours, size, stride)
    gy = RNG.standard_normal(y.shape)
    y.backward(gy)
    torch.nn.functional.max_pool2d(theirs, size, stride).backward(torch.tensor(gy))
    np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), atol=1e-12)
