"""ext/direct_phases.pyx against the base backend, at every level."""

from __future__ import annotations

import numpy as np
import pytest

from cases._layouts import empty_last, last
from nnx._ext import direct_data
from nnx.backends.base import Backend

BASE = Backend()
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}  # relative to the largest result

# channels of gx, filters, size of gx, taps, stride, zeros at both ends
GEOMETRIES = {
    "every pixel has a tap": (16, 5, (8, 9), (3, 3), (2, 2), ((1, 1), (1, 1))),
    "most have none": (17, 4, (11, 13), (1, 2), (3, 4), ((0, 0), (1, 0))),
    "one phase": (16, 3, (6, 5), (3, 2), (1, 1), ((3, 0), (2, 1))),
    "strides differ": (33, 6, (9, 10), (5, 3), (3, 2), ((2, 2), (0, 1))),
    "a stride beyond the image": (16, 2, (3, 4), (3, 3), (7, 9), ((1, 2), (0, 0))),
    "rows and columns behind the last filter": (32, 3, (10, 11), (2, 2), (4, 4), ((0, 0), (0, 0))),
    "filters as large as the image": (24, 2, (5, 5), (9, 9), (2, 2), ((4, 4), (4, 4))),
    "padding beyond the filter": (16, 2, (4, 4), (2, 2), (2, 2), ((5, 4), (4, 6))),
    "one dimension": (40, 7, (23,), (5,), (3,), ((2, 1),)),
    "less than a vector": (12, 4, (11, 13), (3, 3), (3, 4), ((1, 1), (1, 2))),
    "many channels": (70, 19, (12, 7), (4, 4), (2, 2), ((1, 1), (1, 1))),
}


def check(actual, expected, dtype):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[dtype] * np.abs(expected).max())


def draw(rng, name, dtype):
    channels, filters, size, taps, stride, padding = GEOMETRIES[name]
    out = [(n + sum(p) - k) // s + 1 for n, k, s, p in zip(size, taps, stride, padding, strict=True)]
    gy = last(rng.standard_normal((3, filters, *out)).astype(dtype))
    w = rng.standard_normal((filters, channels, *taps)).astype(dtype)
    low = tuple(p[0] for p in padding)
    return gy, w, (3, channels, *size), (stride, low, (1,) * len(size), 1), padding


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_pixel(level, rng, name, dtype):
    gy, w, shape, how, padding = draw(rng, name, dtype)
    expected = BASE.conv_data_grad(gy, w, shape, how[0], padding, how[2], 1)
    b = rng.standard_normal(shape[1]).astype(dtype)
    first = empty_last(shape, dtype)
    direct_data.data_grad(gy, w, None, first, *how, 1)
    check(first, expected, dtype)
    for threads in (2, 3, 8):
        gx = empty_last(shape, dtype)
        direct_data.data_grad(gy, w, None, gx, *how, threads)
        np.testing.assert_array_equal(gx, first)
    direct_data.data_grad(gy, w, b, gx, *how, 2)
    check(gx, expected + b.reshape(-1, *[1] * (len(shape) - 2)), dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_added_and_cut(level, rng, name, dtype):
    gy, w, shape, how, _ = draw(rng, name, dtype)
    added, positive = (last(a) for a in rng.standard_normal((2, *shape)).astype(dtype))
    plain = empty_last(shape, dtype)
    direct_data.data_grad(gy, w, None, plain, *how, 2)
    for a, p in ((added, None), (None, positive), (added, positive)):
        gx = empty_last(shape, dtype)
        direct_data.data_grad(gy, w, None, gx, *how, 2, a, p)
        expected = plain if a is None else a + plain
        np.testing.assert_array_equal(gx, expected if p is None else np.where(p <= 0, 0, expected))
