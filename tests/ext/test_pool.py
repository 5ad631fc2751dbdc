"""ext/pool.pyx against the base backend, at every level, and its refusal of what is not safe."""

from __future__ import annotations

import numpy as np
import pytest

from nnx._ext import pool
from nnx.backends.base import Backend
from nnx.backends.base.pool import pooled_sizes
from nnx.backends.cpu import CPUBackend
from nnx.testing import assert_close

BASE, CPU = Backend(), CPUBackend()
# relative to the largest result; sums of a few dozen numbers
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}

# every width of block: four vectors, one, 16 bytes, single channels, and rests of each
CHANNELS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 100, 130)


def geometry(rng, dims):
    kernel = tuple(int(v) for v in rng.integers(1, 4, dims))
    stride = tuple(int(v) for v in rng.integers(1, 4, dims))
    padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
    sizes = tuple(int(v) for v in rng.integers(4, 8, dims))
    return sizes, kernel, stride, padding


def values(rng, shape, dtype):
    """Numbers with ties, and a few that are not finite."""
    x = np.round(rng.standard_normal(shape) * 2)
    x[rng.random(shape) < 0.1] = np.nan
    x[rng.random(shape) < 0.2] = -np.inf
    return x.astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_max_pool(level, dims, dtype, rng):
    for channels in CHANNELS:
        sizes, kernel, stride, padding = geometry(rng, dims)
        dilation = tuple(int(v) for v in rng.integers(1, 3, dims))
        ceil_mode = bool(rng.integers(2))
        if min(pooled_sizes(sizes, kernel, stride, padding, dilation, ceil_mode)) < 1:
            dilation = (1,) * dims
        x = values(rng, (2, channels, *sizes), dtype)
        arguments = (kernel, stride, padding, dilation)
        y, index = CPU.max_pool(x, *arguments, ceil_mode)
        expected, positions = BASE.max_pool(x, *arguments, ceil_mode)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(index, positions)
        assert index.dtype == np.uint8
        gy = rng.standard_normal(y.shape).astype(dtype)
        gx = CPU.max_pool_backward(gy, index, x.shape, *arguments)
        expected = BASE.max_pool_backward(gy, index, x.shape, *arguments)
        assert_close(gx, expected, TOLERANCE[dtype], TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", [(2, 2), (5, 7), (4, 38), (9, 3), (28, 28), (3, 4, 5)], ids=str)
def test_squares(level, sizes, dtype, rng):
    """Windows of 2x2 beside each other, which have kernels of their own; rows and columns may be left over."""
    window = (1,) * (len(sizes) - 2) + (2, 2)
    none, ones = (0,) * len(sizes), (1,) * len(sizes)
    for channels in CHANNELS:
        x = values(rng, (2, channels, *sizes), dtype)
        y, index = CPU.max_pool(x, window, window, none, ones, False)
        expected, positions = BASE.max_pool(x, window, window, none, ones, False)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(index, positions)
        gy = values(rng, y.shape, dtype)
        index[0, 0, ..., 0] = 200  # no window has so many numbers: nothing is added
        gx = CPU.max_pool_backward(gy, index, x.shape, window, window, none, ones)
        index[0, 0, ..., 0] = 0
        gy[0, 0, ..., 0] = 0
        np.testing.assert_array_equal(gx, BASE.max_pool_backward(gy, index, x.shape, window, window, none, ones))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_avg_pool(level, dims, dtype, rng):
    for channels in CHANNELS:
        sizes, kernel, stride, padding = geometry(rng, dims)
        x = rng.standard_normal((2, channels, *sizes)).astype(dtype)
        divisor = (None, 1, -3)[rng.integers(3)]
        arguments = (kernel, stride, padding, bool(rng.integers(2)), bool(rng.integers(2)), divisor)
        y = CPU.avg_pool(x, *arguments)
        assert_close(y, BASE.avg_pool(x, *arguments), TOLERANCE[dtype], TOLERANCE[dtype])
        gy = rng.standard_normal(y.shape).astype(dtype)
        gx = CPU.avg_pool_backward(gy, x.shape, *arguments)
        expected = BASE.avg_pool_backward(gy, x.shape, *arguments)
        assert_close(gx, expected, TOLERANCE[dtype], TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_wide_index(level, dtype, rng):
    x = values(rng, (2, 21, 18, 17), dtype)
    arguments = ((17, 16), (1, 1), (8, 8), (1, 1))
    y, index = CPU.max_pool(x, *arguments, False)
    expected, positions = BASE.max_pool(x, *arguments, False)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(index, positions)
    assert index.dtype == np.int32
    gy = rng.standard_normal(y.shape).astype(dtype)
    gx = CPU.max_pool_backward(gy, index, x.shape, *arguments)
    assert_close(gx, BASE.max_pool_backward(gy, index, x.shape, *arguments), 1e-4, 1e-4)  # sums of 272


def test_foreign_index_is_safe(level, rng):
    """Numbers that no window has go nowhere."""
    gy, index = np.ones((1, 3, 2, 2)), np.full((1, 3, 2, 2), 200, np.uint8)
    gx = CPU.max_pool_backward(gy, index, (1, 3, 4, 4), (2, 2), (2, 2), (0, 0), (1, 1))
    assert not gx.any()


# -- refusals --------------------------------------------------------------------------------------

SHAPE, OUT = (2, 1, 4, 6, 3), (2, 1, 2, 3, 3)
WINDOWS = ((1, 2, 2), (1, 2, 2), (0, 0, 0), (1, 1, 1))


def max_arguments(**changes):
    given = {
        "x": np.zeros(SHAPE),
        "y": np.zeros(OUT),
        "index": np.zeros(OUT, np.uint8),
        "kernel": WINDOWS[0],
        "stride": WINDOWS[1],
        "padding": WINDOWS[2],
        "dilation": WINDOWS[3],
        "num_threads": 1,
    }
    return tuple({**given, **changes}.values())


def readonly(shape, dtype=np.float64):
    a = np.zeros(shape, dtype)
    a.flags.writeable = False
    return a


MAX_ERRORS = [
    ({"x": np.zeros(SHAPE, int)}, TypeError, "max_pool: expected x to be float32 or float64"),
    ({"y": np.zeros(OUT, np.float32)}, TypeError, "max_pool: expected y to be float64"),
    ({"x": np.zeros(SHAPE[1:])}, ValueError, "max_pool: expected the input side with 5 dimensions"),
    ({"x": np.zeros(SHAPE[::-1]).T}, ValueError, "max_pool: expected x to be C-contiguous"),
    ({"x": np.zeros((3, *SHAPE[1:]))}, ValueError, "max_pool: expected x to have 2 in dimension 0"),
    ({"x": np.zeros((*SHAPE[:4], 4))}, ValueError, "max_pool: expected y to have 4 in dimension 4"),
    ({"y": readonly(OUT)}, ValueError, "max_pool: expected y to be writeable"),
    ({"index": readonly(OUT, np.uint8)}, ValueError, "max_pool: expected index to be writeable"),
    ({"index": np.zeros(OUT, np.int64)}, TypeError, "max_pool: expected index to be int32, or uint8 for"),
    ({"index": np.zeros((2, 1, 2, 2, 3), np.uint8)}, ValueError, "expected index to have 3 in dimension 3"),
    ({"index": None}, TypeError, "expected index to be an array, got None"),
    ({"kernel": (1, 17, 16)}, TypeError, "uint8 for windows of at most 256 elements, got uint8 for 272"),
    ({"kernel": (2, 2)}, ValueError, "expected kernel, stride, padding and dilation with 3 entries"),
    ({"kernel": (1, 0, 2)}, ValueError, r"max_pool: expected kernel in \[1, 2147483647\], got 0"),
    ({"stride": (1, 2, 2**31)}, ValueError, "max_pool: expected stride in"),
    ({"padding": (0, -1, 0)}, ValueError, "max_pool: expected padding in"),
    ({"dilation": (1, 1, 2**70)}, ValueError, "max_pool: expected dilation in"),
    ({"kernel": (2**11,) * 3}, ValueError, "max_pool: expected window in"),
    ({"num_threads": 0}, ValueError, "max_pool: expected num_threads to be at least 1, got 0"),
]


@pytest.mark.parametrize(("changes", "error", "message"), MAX_ERRORS, ids=[m[:60] for *_, m in MAX_ERRORS])
def test_max_pool_refuses(changes, error, message):
    with pytest.raises(error, match=message):
        pool.max_pool(*max_arguments(**changes))


def test_any_geometry_stays_inside_the_arrays(level, rng):
    """Windows that do not belong to the shapes of the arrays: wrong numbers, but never a wrong address."""
    for _ in range(300):
        c = int(rng.choice([1, 3, 5, 16, 40]))
        sizes, out = (tuple(int(v) for v in rng.integers(0, 5, 3)) for _ in range(2))
        bounds = ((1, 6), (1, 9), (0, 9), (1, 6))
        geometry = [tuple(int(v) for v in rng.integers(low, high, 3)) for low, high in bounds]
        inside, outside = 2 * int(np.prod(sizes)) * c, 2 * int(np.prod(out)) * c
        memory = np.full(inside + 64, 7.0)
        x = memory[32 : 32 + inside].reshape(2, *sizes, c)
        target = np.full(outside + 64, 7.0)
        y = target[32 : 32 + outside].reshape(2, *out, c)
        numbers = np.full(outside + 64, 7, np.uint8)
        index = numbers[32 : 32 + outside].reshape(2, *out, c)
        pool.max_pool(x, y, index, *geometry, 1)
        pool.max_pool_backward(y, index, x, *geometry, 1)
        for a, n in ((memory, inside), (target, outside), (numbers, outside)):
            assert (a[:32] == 7).all() and (a[32 + n :] == 7).all()


BOXES = (
    (np.zeros(1, np.int64), np.arange(0, 4, 2), np.arange(0, 6, 2)),
    (np.ones(1, np.int64), np.arange(2, 5, 2), np.arange(2, 7, 2)),
    (np.ones(1), np.full(2, 2.0), np.full(3, 2.0)),
)


def mean_arguments(**changes):
    names = ("starts", "ends", "counts")
    given = {"x": np.zeros(SHAPE), "y": np.zeros(OUT), **dict(zip(names, BOXES, strict=True)), "num_threads": 1}
    return tuple({**given, **changes}.values())


def changed(boxes, axis, array):
    return (*boxes[:axis], array, *boxes[axis + 1 :])


MEAN_ERRORS = [
    ({"x": np.zeros(SHAPE, np.uint8)}, TypeError, "mean_pool: expected x to be float32 or float64"),
    ({"y": np.zeros((3, *OUT[1:]))}, ValueError, "mean_pool: expected y to have 2 in dimension 0"),
    ({"y": readonly(OUT)}, ValueError, "mean_pool: expected y to be writeable"),
    ({"starts": BOXES[0][:2]}, ValueError, "expected starts, ends and counts with 3 entries each"),
    ({"starts": changed(BOXES[0], 1, np.array([-1, 2]))}, ValueError, r"expected boxes inside \[0, 4\), got \[-1, 2\)"),
    ({"ends": changed(BOXES[1], 2, np.array([2, 4, 7]))}, ValueError, r"boxes inside \[0, 6\), got \[4, 7\)"),
    ({"ends": changed(BOXES[1], 2, np.array([2, 4]))}, ValueError, "expected ends with 3 elements"),
    ({"counts": changed(BOXES[2], 2, np.ones(3, int))}, TypeError, "expected counts to be float64"),
    ({"num_threads": -1}, ValueError, "mean_pool: expected num_threads to be at least 1"),
]


@pytest.mark.parametrize(("changes", "error", "message"), MEAN_ERRORS, ids=[m[:60] for *_, m in MEAN_ERRORS])
def test_mean_pool_refuses(changes, error, message):
    with pytest.raises(error, match=message):
        pool.mean_pool(*mean_arguments(**changes))


def test_empty_boxes_are_zero_over_their_count(level):
    starts, ends = changed(BOXES[0], 1, np.array([3, 3])), changed(BOXES[1], 1, np.array([1, 3]))
    x, y = np.ones(SHAPE), np.full(OUT, 7.0)
    pool.mean_pool(x, y, starts, ends, BOXES[2], 1)
    assert not y.any()
    gx = np.full(SHAPE, 7.0)
    pool.mean_pool_backward(np.ones(OUT), gx, starts, ends, BOXES[2], 1)
    assert not gx.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("window", "nowhere"), [(2, 255), (3, 255), (16, -1)])
@pytest.mark.parametrize("channels", [1, 3, 20])
def test_a_maximum_of_zero_is_nobody_s(level, rng, window, nowhere, channels, dtype):
    """With positive=True its index is that of no element; NaN keeps its own, and so does everything positive."""
    x = np.abs(rng.standard_normal((2, channels, 2 * window, 2 * window))).astype(dtype)
    x[0, :, :window, :window] = 0
    x[1, 0, 1, 1] = np.nan
    how = ((window, window), (window, window), (0, 0), (1, 1), False)
    base = BASE.max_pool(x, *how, True)
    y, index = CPU.max_pool(x, *how, True)
    plain = CPU.max_pool(x, *how)
    np.testing.assert_array_equal(y, base[0])
    np.testing.assert_array_equal(index, base[1])
    np.testing.assert_array_equal(index, np.where(y <= 0, nowhere, plain[1].astype(int)).astype(index.dtype))
    assert (index == np.array(nowhere).astype(index.dtype)).sum() == channels
    gy = rng.standard_normal(y.shape).astype(dtype)
    for backend in (BASE, CPU):
        gx = backend.max_pool_backward(gy, index, x.shape, *how[:-1])
        assert not gx[0, :, :window, :window].any() and (gx != 0).sum() == gy.size - channels
