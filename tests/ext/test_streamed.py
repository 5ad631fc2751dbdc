"""Large results are stored past the caches: the same bits as in small ones, and at any address."""

from __future__ import annotations

import numpy as np
import pytest

from cases._layouts import last
from nnx._ext import direct, direct_data, winograd

LARGE = 3 << 20  # bytes: STREAM_BYTES in nnx/_ext/memory.pxd


def empty_last(shape, dtype, behind=0):
    """NaN, channels-last, so many numbers behind a place where a cache line begins."""
    n, c, h, w = shape
    memory = np.full(n * c * h * w + 32, np.nan, dtype)
    start = -memory.ctypes.data % 64 // memory.itemsize + behind
    return memory[start : start + n * c * h * w].reshape(n, h, w, c).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("filters", [16, 40, 64])
def test_direct(level, rng, filters, dtype):
    images, size = 3, (73, 1 + LARGE // (2 * 73 * filters * np.dtype(dtype).itemsize))
    x = last(rng.standard_normal((images, 3, *size)).astype(dtype))
    w, b = rng.standard_normal((filters, 3, 1, 1)).astype(dtype), rng.standard_normal(filters).astype(dtype)
    how = ((1, 1), (0, 0), (1, 1), 1)
    for relu in (False, True):
        y = empty_last((images, filters, *size), dtype)
        assert y.nbytes > LARGE > y[0].nbytes
        unaligned = empty_last(y.shape, dtype, behind=1)
        direct.forward(x, w, b, y, *how, relu, 2)
        direct.forward(x, w, b, unaligned, *how, relu, 3)
        assert np.array_equal(y, unaligned)
        for i in range(images):
            one = empty_last((1, filters, *size), dtype)
            direct.forward(x[i : i + 1], w, b, one, *how, relu, 1)
            assert np.array_equal(one[0], y[i])


@pytest.mark.parametrize("each", [1, 2, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_groups(level, rng, each, dtype):
    """Lanes that belong to several groups: one filter per channel, and a few channels with as many filters."""
    images, size = 3, (37, 1 + LARGE // (2 * 37 * 32 * np.dtype(dtype).itemsize))
    x = last(rng.standard_normal((images, 32, *size)).astype(dtype))
    w, b = rng.standard_normal((32, each, 3, 3)).astype(dtype), rng.standard_normal(32).astype(dtype)
    how = ((1, 1), (1, 1), (1, 1), 32 // each)
    for relu in (False, True):
        y = empty_last(x.shape, dtype)
        assert y.nbytes > LARGE > y[0].nbytes
        unaligned = empty_last(y.shape, dtype, behind=1)
        direct.forward(x, w, b, y, *how, relu, 2)
        direct.forward(x, w, b, unaligned, *how, relu, 3)
        assert np.array_equal(y, unaligned)
        for i in range(images):
            one = empty_last((1, 32, *size), dtype)
            direct.forward(x[i : i + 1], w, b, one, *how, relu, 1)
            assert np.array_equal(one[0], y[i])


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_data_gradient_of_one_filter_per_channel(level, rng, stride):
    """From twice the size on."""
    images, size = 3, (37, 1 + LARGE // (37 * 32 * 4))
    w = rng.standard_normal((32, 1, 3, 5)).astype(np.float32)
    out = [(n - 1) // stride + 1 for n in size]
    gy = last(rng.standard_normal((images, 32, *out)).astype(np.float32))
    how = ((stride, stride), (1, 2), (1, 1), 32)
    gx = empty_last((images, 32, *size), np.float32)
    assert gx.nbytes > 2 * LARGE > gx[0].nbytes
    unaligned = empty_last(gx.shape, np.float32, behind=1)
    direct_data.data_grad(gy, w, None, gx, *how, 2)
    direct_data.data_grad(gy, w, None, unaligned, *how, 3)
    assert np.array_equal(gx, unaligned)
    for i in range(images):
        one = empty_last((1, 32, *size), np.float32)
        direct_data.data_grad(gy[i : i + 1], w, None, one, *how, 1)
        assert np.array_equal(one[0], gx[i])


@pytest.mark.parametrize("channels", [16, 64])
def test_data_gradient_with_a_stride(level, rng, channels):
    images, size = 3, (37, 1 + LARGE // (2 * 37 * channels * 4))
    w = rng.standard_normal((5, channels, 3, 3)).astype(np.float32)
    gy = last(rng.standard_normal((images, 5, *[(n - 1) // 2 + 1 for n in size])).astype(np.float32))
    how = (2, 2), (1, 1), (1, 1), 1
    shape = (images, channels, *size)
    added, positive = (last(a) for a in rng.standard_normal((2, *shape)).astype(np.float32))
    for joined in ((), (added, positive)):
        gx, unaligned = empty_last(shape, np.float32), empty_last(shape, np.float32, behind=1)
        assert gx.nbytes > LARGE > gx[0].nbytes
        direct_data.data_grad(gy, w, None, gx, *how, 2, *joined)
        direct_data.data_grad(gy, w, None, unaligned, *how, 3, *joined)
        assert np.array_equal(gx, unaligned)
        for i in range(images):
            one = empty_last((1, *shape[1:]), np.float32)
            direct_data.data_grad(gy[i : i + 1], w, None, one, *how, 1, *(a[i : i + 1] for a in joined))
            assert np.array_equal(one[0], gx[i])


@pytest.mark.parametrize("filters", [16, 24, 48])
def test_winograd(level, rng, filters):
    images, size = 3, (74, 1 + LARGE // (2 * 74 * filters * 4))  # whole tiles, and parts of tiles at two sides
    x = last(rng.standard_normal((images, 16, *size)).astype(np.float32))
    w, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((filters, 16, 3, 3), (filters,)))
    for relu in (False, True):
        y = empty_last((images, filters, *size), np.float32)
        assert y.nbytes > LARGE > y[0].nbytes
        unaligned = empty_last(y.shape, np.float32, behind=1)
        winograd.forward(x, w, b, y, (1, 1), relu, 2)
        winograd.forward(x, w, b, unaligned, (1, 1), relu, 3)
        assert np.array_equal(y, unaligned)
        for i in range(images):
            one = empty_last((1, filters, *size), np.float32)
            winograd.forward(x[i : i + 1], w, b, one, (1, 1), relu, 1)
            assert np.array_equal(one[0], y[i])
    gy = last(rng.standard_normal((images, 16, *size)).astype(np.float32))
    turned = np.ascontiguousarray(w.swapaxes(0, 1))  # (16, filters): the gradient has as many channels as y above
    gx = [empty_last((images, filters, *size), np.float32, behind) for behind in (0, 1)]
    for result in gx:
        winograd.data_grad(gy, turned, result, (1, 1), 2)
    assert np.array_equal(*gx)
