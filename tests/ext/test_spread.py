"""ext/spread.pyx against the base backend, at every level."""

from __future__ import annotations

import platform

import numpy as np
import pytest

from cases._layouts import empty_last, holes, last
from nnx._ext import spread
from nnx.backends.base import Backend

BASE = Backend()
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}  # relative to the largest result

# images, channels, filters, height and width of an image, of a filter; padding low and high, of rows and of columns
GEOMETRIES = {
    "lenet": (3, 1, 6, 28, 28, 5, 5, (2, 2), (2, 2)),
    "whole-vectors": (2, 1, 8, 9, 16, 3, 3, (1, 1), (1, 1)),
    "one-filter": (2, 5, 1, 11, 37, 3, 4, (0, 2), (3, 1)),
    "narrow": (2, 3, 3, 4, 2, 3, 3, (1, 1), (1, 1)),
    "one-pixel": (2, 2, 5, 5, 7, 5, 7, (0, 0), (0, 0)),
    "one-column": (1, 2, 7, 13, 1, 7, 1, (3, 3), (0, 0)),
    "long-period": (1, 3, 7, 6, 50, 3, 5, (2, 0), (0, 4)),
    "seven": (1, 4, 2, 21, 19, 7, 7, (6, 3), (6, 0)),
    "several-bands": (2, 4, 5, 50, 240, 3, 3, (1, 1), (1, 1)),
    "cut-off": (1, 2, 4, 9, 9, 3, 3, (0, 0), (0, -4)),
    "far-padding": (1, 2, 4, 3, 3, 3, 3, (2, 9), (1, 12)),
}


def draw(name, dtype):
    images, channels, filters, height, width, down, across, rows, columns = GEOMETRIES[name]
    rng = np.random.default_rng(len(name))
    x = rng.standard_normal((images, channels, height, width)).astype(dtype)
    w = rng.standard_normal((filters, channels, down, across)).astype(dtype)
    b = rng.standard_normal(filters).astype(dtype)
    # what the base backend is given: columns that no filter reaches are cut off before
    base_x = x[..., : width + min(columns[1], 0)]
    padding = (rows, (columns[0], max(columns[1], 0)))
    y = BASE.conv(base_x, w, b, (1, 1), padding, (1, 1), 1)
    gy = rng.standard_normal(y.shape).astype(dtype)
    gw = BASE.conv_weight_grad(gy, base_x, w.shape, (1, 1), padding, (1, 1), 1)
    return x, w, b, gy, (rows[0], columns[0]), y, gw


def passes(x, w, b, gy, low, threads=2, layout=np.asarray):
    y, gw = empty_last(gy.shape, x.dtype), np.full(w.shape, np.nan, x.dtype)
    spread.forward(layout(x), layout(w), b, y, low, False, threads)
    spread.weight_grad(last(gy), layout(x), gw, low, threads)
    return y, gw


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_both_passes(level, name, dtype):
    x, w, b, gy, low, *expected = draw(name, dtype)
    for layout in (np.ascontiguousarray, last, holes):
        for actual, right in zip(passes(x, w, b, gy, low, 2, layout), expected, strict=True):
            np.testing.assert_allclose(actual, right, rtol=0, atol=TOLERANCE[dtype] * np.abs(right).max())


@pytest.mark.parametrize("name", ["lenet", "several-bands"])
def test_the_number_of_threads_does_not_change_the_bits(level, name):
    x, w, b, gy, low, *_ = draw(name, np.float32)
    results = [b"".join(a.tobytes() for a in passes(x, w, b, gy, low, threads)) for threads in (1, 2, 3, 4, 8)]
    assert len(set(results)) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_positive_part(level, rng, dtype):
    """With relu=True the result is that of relu(forward), bit for bit, NaN included; without a bias it is 0."""
    x = rng.standard_normal((2, 3, 9, 7)).astype(dtype)
    x[0, :, 0, 0] = np.nan
    w = rng.standard_normal((3, 3, 3, 3)).astype(dtype)
    plain, positive, biased = (empty_last((2, 3, 9, 7), dtype) for _ in range(3))
    spread.forward(x, w, None, plain, (1, 1), False, 2)
    spread.forward(x, w, None, positive, (1, 1), True, 2)
    spread.forward(x, w, np.zeros(3, dtype), biased, (1, 1), False, 2)
    assert np.isnan(positive).any() and (positive == 0).any()
    np.testing.assert_array_equal(positive, np.where(plain <= 0, 0, plain))
    np.testing.assert_array_equal(plain, biased)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_finite_stays_in_its_taps(level, rng, bad, dtype):
    """Vectors reach behind the end of a row: what is computed there must reach nobody."""
    x, w = rng.standard_normal((2, 2, 6, 7)).astype(dtype), rng.standard_normal((3, 2, 3, 3)).astype(dtype)
    gy = rng.standard_normal((2, 3, 4, 5)).astype(dtype)
    x[1, 1, 2, 6] = bad  # only the taps of the last column meet it
    y, gw = passes(x, w, None, gy, (0, 0))
    with np.errstate(invalid="ignore"):
        expected = BASE.conv(x, w, None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
        grad = BASE.conv_weight_grad(gy, x, w.shape, (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    np.testing.assert_array_equal(np.isfinite(y), np.isfinite(expected))
    np.testing.assert_array_equal(np.isfinite(gw), np.isfinite(grad))
    assert np.isfinite(y).sum() == y.size - 9 and np.isfinite(gw).sum() == gw.size - 9
    gy[0, 1, 3, 4] = bad  # the last number of an image, the first of the next lies behind it
    _, gw = passes(np.ones_like(x), w, None, gy, (0, 0))
    assert not np.isfinite(gw[1]).any() and np.isfinite(gw[[0, 2]]).all()


def test_nothing_is_written_behind_the_result(level, rng):
    """Whole vectors are computed where fewer numbers remain."""
    x, w = rng.standard_normal((2, 2, 6, 5)), rng.standard_normal((3, 2, 3, 3))
    memory = np.full(2 * 6 * 5 * 3 + 64, 7.0)
    y = memory[32:-32].reshape(2, 6, 5, 3).transpose(0, 3, 1, 2)
    spread.forward(x, w, None, y, (1, 1), False, 1)
    assert (memory[:32] == 7).all() and (memory[-32:] == 7).all() and not (memory[32:-32] == 7).any()


def test_empty_batches_and_no_channels(level):
    for images, channels in ((0, 2), (2, 0)):
        x, w = np.ones((images, channels, 5, 5)), np.ones((3, channels, 3, 3))
        y, gw = passes(x, w, np.array([1.0, 2.0, 3.0]), np.ones((images, 3, 5, 5)), (1, 1))
        assert not gw.any() and all((y[:, f] == f + 1).all() for f in range(3))


def test_how_many_filters_leave_lanes_idle(level):
    """Three quarters of eight lanes or more, half of fewer; for no more than eight filters there are kernels."""
    expected = {"base": (2, 1), "v2": (2, 1), "v3": (6, 2), "v4": (8, 6)}
    if platform.machine() in ("x86_64", "AMD64"):  # other processors have one level
        assert (spread.most_filters(4), spread.most_filters(8)) == expected[level]
    assert 1 <= spread.most_filters(8) <= spread.most_filters(4) <= 8


F = np.float32
GOOD = {
    "x": np.ones((2, 4, 5, 5), F),
    "w": np.ones((6, 4, 3, 3), F),
    "bias": None,
    "y": empty_last((2, 6, 5, 5), F),
    "padding": (1, 1),
    "relu": False,
    "num_threads": 1,
}
ERRORS = [
    ({"padding": (1,)}, ValueError, r"expected padding of 2 numbers, got \(1,\)"),
    ({"padding": (3, 1)}, ValueError, r"expected padding in \[0, 3\), got \(3, 1\)"),
    ({"padding": (1, -1)}, ValueError, r"expected padding in \[0, 3\), got \(1, -1\)"),
    ({"w": np.ones((6, 3, 3, 3), F)}, ValueError, r"expected x \(N, C, ..\), w \(F, C, ..\) and y \(N, F, ..\)"),
    ({"w": np.ones((6, 4, 4, 3), F)}, ValueError, "expected filters of 3, 5 or 7 rows .* got 4x3"),
    ({"w": np.ones((6, 4, 3, 3, 3), F)}, ValueError, "expected filters of 3, 5 or 7 rows on images of two dimensions"),
    ({"w": np.ones((6, 4, 3, 3))}, TypeError, "expected arrays of one dtype, got w of float64"),
    ({"y": np.ones((2, 6, 5, 5), F)}, ValueError, "expected y to be channels-last in memory"),
    ({"bias": np.ones(5, F)}, ValueError, "expected a contiguous bias of 6 numbers like x"),
    ({"num_threads": 0}, ValueError, "expected num_threads to be at least 1"),
]


@pytest.mark.parametrize(("change", "error", "message"), ERRORS)
def test_errors(change, error, message):
    with pytest.raises(error, match=f"spread.forward: {message}"):
        spread.forward(*(GOOD | change).values())


def test_more_errors():
    x, w, y = np.ones((1, 1, 5, 5), F), np.ones((9, 1, 3, 3), F), empty_last((1, 9, 3, 3), F)
    with pytest.raises(ValueError, match="spread.weight_grad: expected at most 8 filters, got 9"):
        spread.weight_grad(y, x, w, (0, 0), 1)
    wide = np.ones((1, 1, 3, 100_000), F)
    with pytest.raises(ValueError, match="spread.forward: expected 8 rows of all channels, 8 times, to fit 4194304"):
        spread.forward(wide, np.ones((8, 1, 3, 3), F), None, empty_last((1, 8, 1, 99_998), F), (0, 0), False, 1)
    y.flags.writeable = False
    with pytest.raises(ValueError, match="expected y to be writeable"):
        spread.forward(x, w, None, y, (0, 0), False, 1)
    gw = w[:6]
    gw.flags.writeable = False
    with pytest.raises(ValueError, match="spread.weight_grad: expected gw to be writeable"):
        spread.weight_grad(empty_last((1, 6, 3, 3), F), x, gw, (0, 0), 1)
