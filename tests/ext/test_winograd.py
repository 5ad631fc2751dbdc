"""ext/winograd.pyx against convolution in float64."""

from __future__ import annotations

import numpy as np
import pytest

from cases._layouts import empty_last, last
from nnx._ext import winograd
from nnx.backends.base import Backend

BASE = Backend()
STEPS = ((1, 1), (1, 1))

# Largest error in units of the exact result's root mean square, for inputs with mean zero. The matrices of
# F(4x4, 3x3) lose about a digit against direct summation (which has some 2e-6); this is what nnx promises.
PROMISE = 1e-4


def exact(x, w, b, gy, padding):
    """All three passes in float64, by direct summation."""
    x, w, gy = (a.astype(np.float64) for a in (x, w, gy))
    pairs = tuple((p, p) for p in padding)
    y = BASE.conv(x, w, None if b is None else b.astype(np.float64), (1, 1), pairs, (1, 1), 1)
    gx = BASE.conv_data_grad(gy, w, x.shape, (1, 1), pairs, (1, 1), 1)
    gw = BASE.conv_weight_grad(gy, x, w.shape, (1, 1), pairs, (1, 1), 1)
    return y, gx, gw


def passes(x, w, b, gy, padding, threads=2):
    y, gx, gw = empty_last(gy.shape, np.float32), empty_last(x.shape, np.float32), np.full(w.shape, np.nan, np.float32)
    winograd.forward(last(x), w, b, y, padding, False, threads)
    winograd.data_grad(last(gy), w, gx, padding, threads)
    winograd.weight_grad(last(gy), last(x), gw, padding, threads)
    return y, gx, gw


def worst_error(actual, expected):
    return np.abs(actual - expected).max() / np.sqrt(np.mean(expected**2))


@pytest.mark.parametrize("number", range(16))
def test_three_passes(level, number):
    """Every tail: images and channels that are no multiple of a tile or a vector, down to a single one."""
    rng = np.random.default_rng(number)
    n, c, f = (int(v) for v in (rng.integers(1, 4), rng.integers(1, 70), rng.integers(1, 70)))
    padding = (int(rng.integers(0, 3)), int(rng.integers(0, 3)))
    height, width = (int(v) for v in rng.integers(3, 21, 2))
    if number == 0:
        height, width, padding = 1, 1, (1, 1)
    x = rng.standard_normal((n, c, height, width)).astype(np.float32)
    w = (rng.standard_normal((f, c, 3, 3)) / np.sqrt(9 * c)).astype(np.float32)
    b = rng.standard_normal(f).astype(np.float32)
    out = (n, f, height + 2 * padding[0] - 2, width + 2 * padding[1] - 2)
    gy = rng.standard_normal(out).astype(np.float32)
    results = passes(x, w, b, gy, padding)
    for actual, expected in zip(results, exact(x, w, b, gy, padding), strict=True):
        assert np.isfinite(actual).all()
        assert worst_error(actual, expected) < PROMISE


@pytest.mark.parametrize("channels", [16, 64, 512])
def test_the_error_grows_slowly_with_the_channels(channels):
    rng = np.random.default_rng(channels)
    size = 30 if channels < 512 else 14
    x = rng.standard_normal((1, channels, size, size)).astype(np.float32)
    w = (rng.standard_normal((32, channels, 3, 3)) * np.sqrt(2 / (9 * channels))).astype(np.float32)
    gy = rng.standard_normal((1, 32, size, size)).astype(np.float32)
    results = passes(x, w, None, gy, (1, 1))
    for actual, expected in zip(results, exact(x, w, None, gy, (1, 1)), strict=True):
        assert worst_error(actual, expected) < PROMISE


def test_the_error_of_positive_images_is_bounded_by_their_size():
    """Images that are not centred: the bound is relative to the root mean square of |w| * |x|."""
    rng = np.random.default_rng(5)
    x = rng.uniform(0, 255, (1, 64, 30, 30)).astype(np.float32)
    w = rng.standard_normal((64, 64, 3, 3)).astype(np.float32)
    gy = rng.uniform(0, 1, (1, 64, 30, 30)).astype(np.float32)
    y = passes(x, w, None, gy, (1, 1))[0]
    expected = exact(x, w, None, gy, (1, 1))[0]
    scale = exact(x, np.abs(w), None, gy, (1, 1))[0]
    assert np.abs(y - expected).max() < PROMISE * np.sqrt(np.mean(scale**2))


def test_the_error_at_512_channels_and_224x224():
    """The largest case that is promised, forward and data gradient; the exact result is computed for some rows."""
    rng = np.random.default_rng(6)
    x = last(rng.standard_normal((1, 512, 224, 224)).astype(np.float32))
    w = (rng.standard_normal((16, 512, 3, 3)) * np.sqrt(2 / (9 * 512))).astype(np.float32)
    turned = np.ascontiguousarray(w[:, :, ::-1, ::-1].swapaxes(0, 1))  # whose data gradient is the same convolution
    y, gx = empty_last((1, 16, 224, 224), np.float32), empty_last((1, 16, 224, 224), np.float32)
    winograd.forward(x, w, None, y, (1, 1), False, 2)
    winograd.data_grad(x, turned, gx, (1, 1), 2)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))).astype(np.float64)
    for start in (0, 110, 218):
        rows = slice(start, start + 6)
        strip = padded[:, :, start : start + 8]
        expected = BASE.conv(strip, w.astype(np.float64), None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
        assert worst_error(y[:, :, rows], expected) < PROMISE
        assert worst_error(gx[:, :, rows], expected) < PROMISE


def test_the_number_of_threads_does_not_change_the_bits(level, rng):
    x = rng.standard_normal((5, 20, 17, 19)).astype(np.float32)
    w = rng.standard_normal((36, 20, 3, 3)).astype(np.float32)
    gy = rng.standard_normal((5, 36, 17, 19)).astype(np.float32)
    results = {tuple(a.tobytes() for a in passes(x, w, None, gy, (1, 1), threads)) for threads in (1, 2, 3, 4, 8)}
    assert len(results) == 1


def test_nan_stays_near_where_it_was(rng):
    x = rng.standard_normal((1, 16, 12, 12)).astype(np.float32)
    x[0, 3, 5, 5] = np.nan
    w = rng.standard_normal((16, 16, 3, 3)).astype(np.float32)
    y = passes(x, w, None, x, (1, 1))[0]
    assert np.isnan(y[0, :, 4:7, 4:7]).all(), "NaN must reach every output that sees it"
    assert np.isfinite(y[0, :, :, 9:]).all()


def test_filters_of_any_strides(rng):
    x = rng.standard_normal((1, 16, 8, 8)).astype(np.float32)
    w = rng.standard_normal((3, 3, 16, 20)).astype(np.float32)
    turned = w.transpose(3, 2, 0, 1)[:, :, ::-1]
    plain = np.ascontiguousarray(turned)
    a, b = (passes(x, v, None, np.ones((1, 20, 8, 8), np.float32), (1, 1)) for v in (turned, plain))
    assert all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))


def test_positive_part(level, rng):
    """With relu=True the result is that of relu(forward), bit for bit, NaN included."""
    x = rng.standard_normal((2, 17, 9, 7)).astype(np.float32)
    x[0, :, 0, 0] = np.nan
    w, b = rng.standard_normal((19, 17, 3, 3)).astype(np.float32), rng.standard_normal(19).astype(np.float32)
    plain, positive = empty_last((2, 19, 9, 7), np.float32), empty_last((2, 19, 9, 7), np.float32)
    winograd.forward(last(x), w, b, plain, (1, 1), False, 2)
    winograd.forward(last(x), w, b, positive, (1, 1), True, 2)
    assert np.isnan(positive).any() and (positive == 0).any()
    np.testing.assert_array_equal(positive, np.where(plain <= 0, 0, plain))


@pytest.mark.parametrize("number", range(6))
def test_a_data_gradient_that_is_added_and_cut(level, number):
    """The same bits as one after the other, where the result is stored past the caches too; NaN is no cut."""
    rng = np.random.default_rng(number)
    n, c, f = (int(v) for v in (rng.integers(1, 4), rng.integers(1, 70), rng.integers(1, 40)))
    height, width = (int(v) for v in rng.integers(3, 21, 2))
    if number == 0:
        n, c, f, height, width = 4, 64, 16, 56, 56
    gy, w, added, positive = (
        rng.standard_normal(shape).astype(np.float32)
        for shape in ((n, f, height, width), (f, c, 3, 3), (n, c, height, width), (n, c, height, width))
    )
    positive[rng.random(positive.shape) < 0.1] = 0
    positive[0, 0] = np.nan
    gy, added, positive = last(gy), last(added), last(positive)
    plain = empty_last(added.shape, np.float32)
    winograd.data_grad(gy, w, plain, (1, 1), 2)
    for a, p in ((added, None), (None, positive), (added, positive)):
        gx = empty_last(added.shape, np.float32)
        winograd.data_grad(gy, w, gx, (1, 1), 2, a, p)
        expected = plain if a is None else a + plain
        np.testing.assert_array_equal(gx, expected if p is None else np.where(p <= 0, 0, expected))


F = np.float32
GOOD = {
    "x": last(np.ones((2, 4, 5, 5), F)),
    "w": np.ones((6, 4, 3, 3), F),
    "bias": None,
    "y": empty_last((2, 6, 5, 5), np.float32),
    "padding": (1, 1),
    "relu": False,
    "num_threads": 1,
}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"padding": (3, 1)}, ValueError, r"expected padding to be two numbers in \[0, 2\], got \(3, 1\)"),
        ({"padding": (1,)}, ValueError, "expected padding to be two numbers"),
        ({"w": np.ones((6, 4, 5, 5), F)}, ValueError, "expected 3x3 filters on images of two dimensions, got 5x5"),
        ({"w": np.ones((6, 3, 3, 3), F)}, ValueError, r"expected x \(N, C, ..\), w \(F, C, 3, 3\)"),
        ({"w": np.ones((6, 4, 3, 3))}, TypeError, "expected arrays of one dtype, got w of float64"),
        ({"x": np.ones((2, 4, 5, 5), F)}, ValueError, "expected x to be channels-last in memory"),
        ({"bias": np.ones(5, F)}, ValueError, "expected a contiguous float32 bias of 6 numbers"),
        ({"num_threads": 0}, ValueError, "expected num_threads to be at least 1"),
    ],
)
def test_errors(change, error, message):
    with pytest.raises(error, match=f"winograd.forward: {message}"):
        winograd.forward(*(GOOD | change).values())
