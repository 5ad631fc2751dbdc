"""Fully connected layers as functions: types and errors. Values and gradients are in cases/gemm.py."""

from __future__ import annotations

import numpy as np
import pytest

import nnx.functional as F
from nnx.autograd import Tensor


def test_arrays_take_the_type_of_the_weight(rng):
    w = Tensor(rng.standard_normal((2, 3)).astype(np.float32))
    y = F.linear(rng.standard_normal((5, 3)), w, [1, 2])
    assert y.dtype == np.float32
    images = rng.integers(0, 255, (5, 3), dtype=np.uint8)
    np.testing.assert_allclose(F.linear(images, w).data, images @ w.data.T, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (3,), (2, 4, 3)])
def test_leading_dimensions(shape, rng):
    w, b = rng.standard_normal((2, 3)), rng.standard_normal(2)
    x = rng.standard_normal(shape)
    np.testing.assert_allclose(F.linear(x, w, b).data, x @ w.T + b, rtol=1e-12)


@pytest.mark.parametrize(("n", "features", "out"), [(4, 0, 3), (4, 3, 0), (0, 0, 0)])
def test_no_features(n, features, out):
    x, w, b = np.ones((n, features)), np.ones((out, features)), np.ones(out)
    tensors = [Tensor(a, requires_grad=True) for a in (x, w, b)]
    y = F.linear(*tensors)
    np.testing.assert_array_equal(y.data, np.ones((n, out)))  # the bias alone
    y.sum().backward()
    assert [t.grad.shape for t in tensors] == [t.shape for t in tensors]


X, W = np.ones((4, 3)), np.ones((2, 3))
CUBE = np.ones((2, 3, 5))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.linear(np.ones((3, 28)), np.ones((10, 784))), ValueError,
         r"linear: expected input with 784 features in the last dimension, got shape \(3, 28\)"),
        (lambda: F.linear(np.float64(1), W), ValueError, r"linear: expected input with 3 features.*got shape \(\)"),
        (lambda: F.linear(X, W[0]), ValueError,
         r"linear: expected weight of shape \(out_features, in_features\), got shape \(3,\)"),
        (lambda: F.linear(X, W, np.ones(3)), ValueError,
         r"linear: expected bias of shape \(2,\) for weight of shape \(2, 3\), got \(3,\)"),
        (lambda: F.linear(X, W, Tensor(np.ones(2, np.float32))), TypeError,
         "linear: expected bias of dtype float64 like weight, got a Tensor of dtype float32"),
        (lambda: F.linear(Tensor(np.ones((4, 3), np.float32)), W), TypeError,
         "linear: expected input of dtype float64 like the parameters, got a Tensor of dtype float32"),
        (lambda: F.linear(X, Tensor(np.ones((2, 3), int))), TypeError,
         "linear: expected weight of dtype float32 or float64, got a Tensor of dtype int64"),
        (lambda: F.bilinear(X, np.ones((4, 5)), W), ValueError,
         r"bilinear: expected weight of shape \(out_features, in1_features, in2_features\), got shape \(2, 3\)"),
        (lambda: F.bilinear(X, X, CUBE), ValueError,
         r"bilinear: expected input2 with 5 features in the last dimension, got shape \(4, 3\)"),
        (lambda: F.bilinear(X, np.ones((6, 5)), CUBE), ValueError,
         r"bilinear: expected inputs of equal shape but for the last dimension, got \(4, 3\) and \(6, 5\)"),
        (lambda: F.bilinear(X, np.ones((4, 5)), CUBE, np.ones(3)), ValueError,
         r"bilinear: expected bias of shape \(2,\) for weight of shape \(2, 3, 5\), got \(3,\)"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error, match=rf"^{message}"):
        call()
