"""Kernels refuse, by name, every array that they could not read or write safely.

The checks are those of nnx/_ext/common.pxd, which all kernels share; relu stands for them.
"""

from __future__ import annotations

import numpy as np
import pytest

from nnx._ext import activation


def unaligned(n: int) -> np.ndarray:
    return np.zeros(8 * n + 1, np.uint8)[1:].view(np.float64)


X = np.zeros((3, 4))


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (
            X.astype(int),
            X,
            TypeError,
            "relu: expected x to be float32 or float64, native and aligned",
        ),
        (X.astype(">f8"), X, TypeError, "got >f8"),
        (unaligned(12).reshape(3, 4), X, TypeError, r"got <f8 \(unaligned\)"),
        (None, X, TypeError, "expected x to be an array, got None"),
        (X, None, TypeError, "expected y to be an array, got None"),
        (X, X.astype(np.float32), TypeError, "relu: expected y to be float64, native and aligned"),
        (
            np.zeros((3, 8))[:, ::2],
            X,
            ValueError,
            r"expected x to be dense in memory, got shape \(3, 4\)",
        ),
        (np.broadcast_to(X[0], (3, 4)), X, ValueError, "dense in memory"),
        (X[::-1], X, ValueError, "dense in memory"),
        (X, np.zeros((4, 3)), ValueError, r"relu: expected y with shape \(3, 4\)"),
        (X, np.zeros((3, 4, 1)), ValueError, r"expected y with shape \(3, 4\)"),
        (X, np.zeros((4, 3)).T, ValueError, r"and strides \(32, 8\), got \(3, 4\) and \(8, 24\)"),
        (np.zeros((3, 5)), np.zeros((3, 0)), ValueError, r"expected y with shape \(3, 5\)"),
        (np.zeros((3, 0)), np.zeros((3, 5)), ValueError, r"expected y with shape \(3, 0\)"),
    ],
)
def test_wrong_arrays(x, y, error, message):
    with pytest.raises(error, match=message):
        activation.relu(x, y, 1)


def test_read_only_output():
    y = np.zeros((3, 4))
    y.flags.writeable = False
    with pytest.raises(ValueError, match="relu: expected y to be writeable, got a read-only array"):
        activation.relu(X, y, 1)


@pytest.mark.parametrize("threads", [0, -1])
def test_wrong_thread_count(threads):
    message = f"relu: expected num_threads to be at least 1, got {threads}"
    with pytest.raises(ValueError, match=message):
        activation.relu(X, np.empty_like(X), threads)


def test_no_array():
    with pytest.raises(TypeError):
        activation.relu([1.0], X, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("n", [0, 1, 8191, 8192, 8193, 100_003])
def test_any_size_and_thread_count(n, threads, dtype):
    x = np.random.default_rng(n).standard_normal(n).astype(dtype)
    x.flags.writeable = False
    y = np.full(n + 2, 7, dtype)
    activation.relu(x, y[1:-1], threads)
    np.testing.assert_array_equal(y[1:-1], np.maximum(x, 0))
    assert y[0] == y[-1] == 7


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_any_order_of_the_axes(order):
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).transpose(order)
    y = np.empty_like(x)
    activation.relu(x, y, 1)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
