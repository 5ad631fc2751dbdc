"""ext/conv.pyx against the base backend, at every level, over random geometries."""

from __future__ import annotations

import numpy as np
import pytest

from cases._layouts import empty_last, holes, last
from nnx._ext import conv, conv_weight
from nnx.backends.base import Backend

BASE = Backend()
# relative to the largest result; sums of a few hundred products
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}


def geometry(rng, number, dims):
    """A random convolution; the number picks the kinds that random draws would miss."""
    groups = int(rng.choice([1, 1, 2, 3]))
    inside = int(rng.integers(1, 5))
    filters = int(rng.integers(1, 6))
    if number % 4 == 0:
        filters = int(rng.integers(20, 70))  # more than one panel, with a tail
    if number % 5 == 0:
        inside = int(rng.choice([17, 64, 65, 130]))  # more than one block of channels
    if number % 7 == 0:
        groups, inside, filters = int(rng.integers(2, 40)), 1, 1  # depthwise
    kernel = [int(v) for v in rng.integers(1, 5, dims)]
    stride = [int(v) for v in rng.integers(1, 4, dims)]
    dilation = [int(v) for v in rng.integers(1, 3, dims)]
    padding = [tuple(int(v) for v in rng.integers(0, 4, 2)) for _ in range(dims)]
    if number % 6 == 0:
        kernel, stride, padding = [1] * dims, [1] * dims, [(0, 0)] * dims
    sizes = [
        max(int(rng.integers(1, 14)), (k - 1) * d + 1 - sum(p))
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    ]
    x = (int(rng.integers(1, 5)), groups * inside, *sizes)
    w = (groups * filters, inside, *kernel)
    return x, w, tuple(stride), tuple(padding), tuple(dilation), groups


def backwards(a):
    """The same numbers, the last axis from right to left in memory."""
    return np.ascontiguousarray(a[..., ::-1])[..., ::-1]


def check(actual, expected, dtype):
    largest = max(np.abs(expected).max(initial=0), 1e-30)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[dtype] * largest)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("number", range(12))
def test_three_passes(level, dims, number, dtype):
    rng = np.random.default_rng([dims, number])
    check_three_passes(rng, dtype, *geometry(rng, number, dims))


# so many filters for so few pixels that each task packs its own
MANY_FILTERS = [
    ((1, 200, 5, 7), (153, 200, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    ((2, 130, 9, 8), (300, 130, 3, 3), (2, 2), ((1, 0), (0, 1)), (1, 1), 1),
    ((1, 200, 6, 5), (620, 100, 3, 3), (1, 2), ((1, 1), (2, 2)), (2, 1), 2),
    ((3, 300, 20), (200, 300, 5), (1,), ((4, 4),), (2,), 1),
    ((1, 40, 3, 4, 3), (260, 40, 3, 3, 3), (1, 1, 2), ((1, 1),) * 3, (1, 1, 1), 1),
    ((1, 12, 18, 18), (90, 12, 17, 17), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),  # many taps
    ((1, 600, 7, 7), (500, 600, 1, 1), (2, 2), ((0, 0), (0, 0)), (1, 1), 1),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", MANY_FILTERS, ids=lambda case: "x".join(map(str, case[1])))
def test_many_filters_for_few_pixels(level, rng, case, dtype):
    check_three_passes(rng, dtype, *case)


def check_three_passes(rng, dtype, x_shape, w_shape, stride, padding, dilation, groups):
    x = rng.standard_normal(x_shape).astype(dtype)
    w = rng.standard_normal(w_shape).astype(dtype)
    b = rng.standard_normal(w_shape[0]).astype(dtype)
    how = (stride, padding, dilation, groups)
    forward_how = (stride, tuple(p[0] for p in padding), dilation, groups)
    kernel_how = (*forward_how, 2)
    expected = BASE.conv(x, w, b, *how)
    gy = rng.standard_normal(expected.shape).astype(dtype)
    gx_expected = BASE.conv_data_grad(gy, w, x_shape, *how)
    gw_expected = BASE.conv_weight_grad(gy, x, w_shape, *how)
    for layout in (np.ascontiguousarray, last, holes, backwards):
        source, weights, g = layout(x), layout(w), layout(gy)
        y = empty_last(expected.shape, dtype)
        conv.forward(source, weights, b, y, *forward_how, False, 2)
        check(y, expected, dtype)
        positive = empty_last(expected.shape, dtype)
        conv.forward(source, weights, b, positive, *forward_how, True, 2)
        assert np.array_equal(positive, np.maximum(y, 0))
        gx = empty_last(x_shape, dtype)
        conv.data_grad(g, weights, None, gx, *kernel_how)
        check(gx, gx_expected, dtype)
        gw = np.full(w_shape, np.nan, dtype)
        conv_weight.weight_grad(last(gy), source, gw, *kernel_how)
        check(gw, gw_expected, dtype)


def test_data_grad_with_bias_is_a_transposed_convolution(level, rng):
    gy = rng.standard_normal((2, 6, 4, 4)).astype(np.float32)
    w = rng.standard_normal((6, 5, 3, 3)).astype(np.float32)
    bias = rng.standard_normal(5).astype(np.float32)
    how = ((2, 2), (1, 1), (1, 1), 1, 2)
    plain, with_bias = empty_last((2, 5, 8, 8), np.float32), empty_last((2, 5, 8, 8), np.float32)
    conv.data_grad(gy, w, None, plain, *how)
    conv.data_grad(gy, w, bias, with_bias, *how)
    check(with_bias, plain + bias[:, None, None], np.float32)


@pytest.mark.parametrize("channels, filters, groups", [(24, 48, 1), (24, 48, 2), (24, 24, 24), (250, 300, 1)])
def test_the_number_of_threads_does_not_change_the_bits(level, rng, channels, filters, groups):
    images, size = (3, (17, 19)) if channels < 250 else (1, (5, 9))
    x = last(rng.standard_normal((images, channels, *size)).astype(np.float32))
    w = rng.standard_normal((filters, channels // groups, 3, 3)).astype(np.float32)
    gy = last(rng.standard_normal((images, filters, *((n + 1) // 2 for n in size))).astype(np.float32))
    results = set()
    for threads in (1, 2, 3, 4, 8):
        shape_how = ((2, 2), (1, 1), (1, 1), groups)
        how = (*shape_how, threads)
        y = empty_last(gy.shape, np.float32)
        gx, gw = empty_last(x.shape, np.float32), np.empty_like(w)
        conv.forward(x, w, None, y, *shape_how, False, threads)
        conv.data_grad(gy, w, None, gx, *how)
        conv_weight.weight_grad(gy, x, gw, *how)
        results.add((y.tobytes(), gx.tobytes(), gw.tobytes()))
    assert len(results) == 1


def test_empty_batch(level):
    x = np.empty((0, 3, 5, 5), np.float32)
    w = np.ones((4, 3, 3, 3), np.float32)
    y = empty_last((0, 4, 3, 3), np.float32)
    how = ((1, 1), (0, 0), (1, 1), 1, 2)
    conv.forward(x, w, None, y, *how[:4], False, 2)
    gw = np.full(w.shape, np.nan, np.float32)
    conv_weight.weight_grad(y, x, gw, *how)
    assert (gw == 0).all()


F = np.float32
GOOD = {
    "x": np.ones((2, 4, 5, 5), F),
    "w": np.ones((6, 4, 3, 3), F),
    "bias": None,
    "y": empty_last((2, 6, 3, 3), F),
    "stride": (1, 1),
    "padding": (0, 0),
    "dilation": (1, 1),
    "groups": 1,
    "relu": False,
    "num_threads": 1,
}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.ones((2, 4), F)}, ValueError, "expected x with 3 to 5 dimensions"),
        ({"x": np.ones((2, 4, 5, 5))}, TypeError, "expected arrays of one dtype, got x of float64"),
        ({"x": np.ones((3, 4, 5, 5), F)}, ValueError, "expected as many images in as out, got 3 and 2"),
        ({"w": np.ones((6, 3, 3, 3), F)}, ValueError, "got 6 filters for 3 channels each"),
        ({"groups": 5}, ValueError, "expected weights of 6 filters for 4 channels in 5 groups"),
        ({"groups": 0}, ValueError, "in 0 groups"),
        ({"w": np.ones((7, 4, 3, 3), F)}, ValueError, "expected weights of 6 filters"),
        ({"bias": np.ones(5, F)}, ValueError, "expected a contiguous bias of 6 numbers"),
        ({"y": np.ones((2, 6, 3, 3), F)}, ValueError, "expected y to be channels-last in memory"),
        ({"stride": (0, 1)}, ValueError, "expected stride and dilation >= 1"),
        ({"padding": (-1, 0)}, ValueError, "padding >= 0"),
        ({"dilation": (1,)}, ValueError, "expected stride, padding and dilation of 1 to 3 numbers"),
        ({"num_threads": 0}, ValueError, "expected num_threads to be at least 1"),
        ({"w": np.ones((6, 4, 1, 5000), F)}, ValueError, "expected at most 4096 taps per axis"),
    ],
)
def test_errors(change, error, message):
    with pytest.raises(error, match=f"conv.forward: .*{message}"):
        conv.forward(*(GOOD | change).values())


def test_any_geometry_stays_inside_of_the_arrays():
    """Sizes that do not belong together are read as zeros, never out of bounds (AddressSanitizer watches)."""
    x = np.ones((1, 2, 3, 3), F)
    y = empty_last((1, 2, 50, 50), F)
    w = np.ones((2, 2, 7, 7), F)
    for stride, padding, dilation in [((1, 1), (60, 0), (9, 9)), ((40, 3), (0, 2), (1, 50))]:
        conv.forward(x, w, None, y, stride, padding, dilation, 1, False, 2)
        assert np.isfinite(y).all()
        gx = empty_last(x.shape, F)
        conv.data_grad(y, w, None, gx, stride, padding, dilation, 1, 2)
        gw = np.empty_like(w)
        conv_weight.weight_grad(y, x, gw, stride, padding, dilation, 1, 2)
        assert np.isfinite(gx).all() and np.isfinite(gw).all()
