"""ext/embedding.pyx against plain NumPy, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from nnx._ext import embedding

each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SIZES = [(1, 1, 1), (5, 3, 0), (0, 3, 0), (5, 0, 4), (3, 7, 1_000), (100, 33, 50), (1_000, 5, 3_000)]


@each_dtype
@pytest.mark.parametrize(("num", "width", "count"), SIZES)
def test_take(num, width, count, dtype, rng):
    weight = rng.standard_normal((num, width)).astype(dtype)
    index = rng.integers(0, max(num, 1), count)
    memory = np.full((count + 2, width), 7, dtype)
    embedding.take(weight, index, memory[1:-1], 2)
    np.testing.assert_array_equal(memory[1:-1], weight[index])
    assert (memory[[0, -1]] == 7).all()


@each_dtype
@pytest.mark.parametrize(("num", "width", "count"), SIZES)
def test_scatter_add(num, width, count, dtype, rng):
    gy = rng.standard_normal((count, width)).astype(dtype)
    index = rng.integers(0, max(num, 1), count)
    expected = np.zeros((num, width), dtype)
    np.add.at(expected, index, gy)
    for threads in (1, 2, 5):
        memory = np.full((num + 2, width), 7, dtype)
        embedding.scatter_add(gy, index, memory[1:-1], threads)
        np.testing.assert_array_equal(memory[1:-1], expected)  # summed in the same order: the same bits
        assert (memory[[0, -1]] == 7).all()


@pytest.mark.parametrize("bad", [-1, 5, 2**62, -(2**63)])
@pytest.mark.parametrize("place", [0, 3, 6])
def test_an_index_outside_of_the_table(bad, place):
    index = np.zeros(7, np.int64)
    index[place] = bad
    y, g = np.full((7, 3), 7.0), np.full((5, 3), 7.0)
    with pytest.raises(IndexError, match=rf"take: expected index in \[0, 5\), got values in .*{bad}"):
        embedding.take(np.ones((5, 3)), index, y, 2)
    with pytest.raises(IndexError, match=rf"scatter_add: expected index in \[0, 5\), got values in .*{bad}"):
        embedding.scatter_add(np.ones((7, 3)), index, g, 2)
    assert (y == 7).all()
    assert (g == 7).all()


INDEX, W, Y = np.zeros(4, np.int64), np.ones((5, 3)), np.ones((4, 3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: embedding.take(W, INDEX.astype(np.int32), Y, 1), TypeError, "take: expected index to be int64"),
        (lambda: embedding.take(W, INDEX[::2], Y[:2], 1), ValueError, "take: expected index to be C-contiguous"),
        (lambda: embedding.take(W, INDEX, Y[:3], 1), ValueError, "take: expected y with 12 elements"),
        (lambda: embedding.take(W[0], INDEX, Y, 1), ValueError, "take: expected weight with 2 dimensions"),
        (lambda: embedding.take(W, INDEX[None], Y, 1), ValueError, "take: expected index with 1 dimensions"),
        (lambda: embedding.take(W, INDEX, Y.astype(np.float32), 1), TypeError, "take: expected y to be float64"),
        (lambda: embedding.take(W, None, Y, 1), TypeError, "take: expected index to be an array, got None"),
        (lambda: embedding.take(W, INDEX, Y, 0), ValueError, "take: expected num_threads to be at least 1"),
        (lambda: embedding.scatter_add(Y[:3], INDEX, W, 1), ValueError, "scatter_add: expected gy with 12 elements"),
        (lambda: embedding.scatter_add(Y, INDEX, W.T, 1), ValueError, "scatter_add: expected g to be C-contiguous"),
        (lambda: embedding.scatter_add(Y, INDEX, np.broadcast_to(W[0], (5, 3)), 1), ValueError, "expected g to"),
        (lambda: embedding.scatter_add(Y, INDEX, W.astype(int), 1), TypeError, "expected g to be float32 or float64"),
    ],
)  # fmt: skip
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
