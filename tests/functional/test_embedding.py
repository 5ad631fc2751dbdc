"""Table look-ups: the gradient's options, index types, errors. Values are in cases/embedding.py."""

from __future__ import annotations

import numpy as np
import pytest

import nnx.functional as F
from nnx.autograd import Tensor


def table(rng, dtype=np.float64):
    return Tensor(rng.standard_normal((5, 3)).astype(dtype), requires_grad=True)


def test_rows_taken_twice_add_up(rng):
    w = table(rng)
    y = F.embedding([[1, 1], [4, 1]], w)
    gy = rng.standard_normal(y.shape)
    y.backward(gy)
    expected = np.zeros((5, 3))
    expected[1] = gy[0, 0] + gy[0, 1] + gy[1, 1]
    expected[4] = gy[1, 0]
    np.testing.assert_allclose(w.grad, expected, rtol=1e-14)


@pytest.mark.parametrize("padding_idx", [1, -4])
def test_padding_gets_no_gradient(padding_idx, rng):
    w = table(rng)
    y = F.embedding([1, 2, 1], w, padding_idx=padding_idx)
    np.testing.assert_array_equal(y.data, w.data[[1, 2, 1]])
    y.sum().backward()
    assert w.grad.any(1).tolist() == [False, False, True, False, False]


def test_gradient_by_frequency(rng):
    w = table(rng)
    F.embedding([1, 2, 1, 1], w, scale_grad_by_freq=True).sum().backward()
    np.testing.assert_allclose(w.grad[:, 0], [0, 1, 1, 0, 0])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, np.uint64, ">i4"])
def test_index_types(dtype, rng):
    w = table(rng)
    index = np.array([[3, 0]], dtype)
    for i in (index, Tensor(index), np.asfortranarray(index), np.broadcast_to(index, (2, 2))):
        y = F.embedding(i, w)
        np.testing.assert_array_equal(y.data, w.data[np.asarray(i, int)])


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (2, 1, 3)])
def test_index_shapes(shape, rng):
    w = table(rng)
    y = F.embedding(np.zeros(shape, int), w)
    assert y.shape == (*shape, 3)
    y.sum().backward()
    np.testing.assert_array_equal(w.grad[0], np.full(3, float(np.prod(shape))))
    assert F.embedding([], w).shape == (0, 3)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_empty_tables(shape):
    w = Tensor(np.zeros(shape), requires_grad=True)
    y = F.embedding(np.zeros(0, int), w)
    y.sum().backward()
    assert w.grad.shape == shape


W = np.ones((5, 3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.embedding([5], W), IndexError, r"expected input in \[0, 5\), got values in \[5, 5\]"),
        (lambda: F.embedding([0, -1], W), IndexError, r"expected input in \[0, 5\), got values in \[-1, 0\]"),
        (lambda: F.embedding([0.0], W), TypeError, "expected input of an integer dtype, got float64"),
        (lambda: F.embedding(np.array([True]), W), TypeError, "expected input of an integer dtype, got bool"),
        (lambda: F.embedding(["a"], W), TypeError, "expected input of an integer dtype, got <U1"),
        (lambda: F.embedding([0], W[0]), ValueError,
         r"expected weight of shape \(num_embeddings, embedding_dim\), got shape \(3,\)"),
        (lambda: F.embedding([0], W, padding_idx=5), ValueError, r"expected padding_idx in \[-5, 5\), got 5"),
        (lambda: F.embedding([0], W, padding_idx=0.5), TypeError, "expected padding_idx to be an integer, got 0.5"),
        (lambda: F.embedding([0], W, max_norm=1.0), ValueError, "expected max_norm to be None.*got 1.0"),
        (lambda: F.embedding([0], W, sparse=True), ValueError, "expected sparse to be False.*got True"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error, match=rf"^embedding: {message}"):
        call()


# -- one_hot ---------------------------------------------------------------------------------------


def test_one_hot():
    y = F.one_hot([[2, 0], [1, 2]])
    assert y.dtype == np.int64
    np.testing.assert_array_equal(y.data, np.eye(3, dtype=int)[[[2, 0], [1, 2]]])
    assert F.one_hot(np.array(1), 4).tolist() == [0, 1, 0, 0]
    assert F.one_hot(np.zeros((0, 2), int), 3).shape == (0, 2, 3)


def test_one_hot_errors():
    with pytest.raises(IndexError, match=r"one_hot: expected input in \[0, 3\), got values in \[0, 3\]"):
        F.one_hot([0, 3], 3)
    with pytest.raises(IndexError, match=r"one_hot: expected input in \[0, 2\), got values in \[-1, 1\]"):
        F.one_hot([-1, 1])
    with pytest.raises(ValueError, match="one_hot: expected num_classes for an empty input, got -1"):
        F.one_hot([])
    with pytest.raises(TypeError, match="one_hot: expected input of an integer dtype, got float64"):
        F.one_hot([0.5])
    with pytest.raises(ValueError, match="one_hot: expected num_classes to be an integer >= -1, got -2"):
        F.one_hot([0], -2)
