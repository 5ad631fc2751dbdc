"""ext/conv_pooled.pyx against the base backend, at every level."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from cases._layouts import holes, last
from nnx._ext import conv_pooled
from nnx.backends.base import Backend
from nnx.backends.base.conv import output_sizes

BASE = Backend()
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}  # relative to the largest result
both_types = pytest.mark.parametrize("dtype", [np.float32, np.float64])


class Case(NamedTuple):
    """A convolution without dilation, and a max pooling without padding behind it."""

    x: tuple
    w: tuple
    stride: tuple = (1, 1)
    padding: tuple = ((0, 0), (0, 0))  # low and high, of rows and of columns
    kernel: tuple = (2, 2)
    step: tuple = (2, 2)
    dilation: tuple = (1, 1)
    ceil: bool = False

    @property
    def y(self):
        return self.x[0], self.w[0], *output_sizes(self.x[2:], self.w[2:], self.stride, self.padding, (1, 1))

    @property
    def how(self):
        return self.stride, tuple(low for low, _ in self.padding), self.kernel, self.step, self.dilation


CASES = {
    "lenet": Case((3, 1, 14, 14), (6, 1, 5, 5), padding=((2, 2), (2, 2))),
    "second": Case((2, 6, 14, 14), (16, 6, 5, 5)),
    "strides-2-and-1": Case((2, 3, 13, 9), (4, 3, 3, 2), (2, 1)),
    "strides-3-and-4": Case((2, 2, 19, 23), (3, 2, 3, 5), (3, 4), ((1, 1), (2, 0))),
    "strides-4-and-2": Case((1, 3, 21, 15), (2, 3, 2, 3), (4, 2), ((0, 3), (1, 1))),
    "low-padding": Case((2, 2, 6, 5), (3, 2, 3, 3), padding=((3, 0), (5, 1))),
    "high-padding": Case((2, 2, 6, 5), (3, 2, 3, 3), padding=((0, 5), (1, 7))),
    "far-padding": Case((1, 2, 3, 3), (4, 2, 3, 3), padding=((9, 2), (12, 0))),
    "only-padding": Case((1, 2, 2, 2), (3, 2, 2, 2), padding=((0, 0), (9, 0)), kernel=(1, 3), step=(1, 8)),
    "overlapping": Case((2, 3, 11, 12), (5, 3, 3, 3), kernel=(3, 3)),
    "closer": Case((1, 2, 7, 8), (3, 2, 2, 3), kernel=(3, 2), step=(1, 1)),
    "gaps": Case((2, 2, 14, 17), (3, 2, 3, 3), step=(4, 5)),
    "dilated": Case((2, 2, 12, 14), (3, 2, 3, 3), dilation=(2, 3)),
    "dilated-3x3": Case((1, 3, 13, 12), (4, 3, 2, 2), (1, 1), ((1, 0), (0, 1)), (3, 3), (2, 1), (3, 2)),
    "dilated-strides": Case((1, 2, 25, 21), (3, 2, 3, 2), (2, 3), kernel=(3, 2), step=(1, 2), dilation=(2, 2)),
    "not-square": Case((2, 3, 12, 13), (5, 3, 3, 2), kernel=(1, 4), step=(1, 3)),
    "tall": Case((2, 3, 14, 9), (5, 3, 2, 4), kernel=(5, 1), step=(3, 2)),
    "hanging-over": Case((2, 2, 9, 11), (3, 2, 3, 3), ceil=True),
    "hanging-far-over": Case((2, 2, 10, 12), (3, 2, 3, 2), kernel=(4, 3), step=(3, 4), ceil=True),
    "one-window": Case((2, 2, 16, 18), (3, 2, 2, 2), kernel=(15, 17)),
    "one-pixel": Case((2, 7, 6, 9), (3, 7, 1, 1), kernel=(3, 2)),
    "one-column": Case((2, 3, 12, 1), (1, 3, 4, 1), kernel=(3, 1), step=(3, 1)),
    "several-bands": Case((2, 3, 90, 40), (2, 3, 3, 3), padding=((1, 1), (1, 1))),
    "bands-of-one-row": Case((2, 5, 13, 260), (2, 5, 4, 3), (1, 2)),
    "more-images-than-chunks": Case((19, 2, 5, 5), (3, 2, 2, 2)),
}


def draw(case, dtype, positive=True):
    """x, and gy and index of the pooling; with `positive` a part of the windows has no maximum."""
    rng = np.random.default_rng(case.x)
    x, y = rng.standard_normal(case.x).astype(dtype), rng.standard_normal(case.y).astype(dtype)
    _, index = BASE.max_pool(y - dtype(0.5), case.kernel, case.step, (0, 0), case.dilation, case.ceil, positive)
    return x, rng.standard_normal(index.shape).astype(dtype), index


def reference(case, x, gy, index):
    """In float64: the gradient of the convolution's result, of its weights and of its bias."""
    g = BASE.max_pool_backward(gy.astype(np.float64), index, case.y, case.kernel, case.step, (0, 0), case.dilation)
    gw = BASE.conv_weight_grad(g, x.astype(np.float64), case.w, case.stride, case.padding, (1, 1), 1)
    return g, gw, BASE.channel_sum(g)


def sums(case, x, gy, index, threads=2):
    gw, gb = np.full(case.w, np.nan, x.dtype), np.full(case.w[:1], np.nan, x.dtype)
    conv_pooled.weight_grad(last(gy), last(index), x, gw, gb, *case.how, threads)
    return gw, gb


def check(actual, case, x, gy, index):
    for a, right in zip(actual, reference(case, x, gy, index)[1:], strict=True):
        np.testing.assert_allclose(a, right, rtol=0, atol=TOLERANCE[x.dtype.type] * np.abs(right).max())


def surrounded(a):
    """The same array inside of a larger one of NaN."""
    view = np.full([n + 4 for n in a.shape], np.nan, a.dtype)[(slice(2, -2),) * a.ndim]
    view[...] = a
    return view


def between(a, value):
    """The same array, channels-last, with `value` in front of it and behind it in memory."""
    memory = np.full(a.size + 128, value, a.dtype)
    n, c, *size = a.shape
    view = memory[64:-64].reshape(n, *size, c).transpose(0, 3, 1, 2)
    view[...] = a
    return view


@cache
def drawn(name, dtype):
    """What is the same at every level."""
    arrays = draw(CASES[name], dtype)
    return arrays, reference(CASES[name], *arrays)[1:]


@both_types
@pytest.mark.parametrize("name", CASES)
def test_the_sums_are_right(level, name, dtype):
    case, ((x, gy, index), expected) = CASES[name], drawn(name, dtype)
    first = None
    for layout in (np.ascontiguousarray, last, holes, surrounded):
        actual = sums(case, layout(x), gy, index)
        for a, right in zip(actual, expected, strict=True):
            np.testing.assert_allclose(a, right, rtol=0, atol=TOLERANCE[dtype] * np.abs(right).max())
        first = first or actual
        assert all(np.array_equal(a, b) for a, b in zip(first, actual, strict=True)), "as the layout does not matter"


def test_the_cases_meet_what_they_are_for():
    """Windows without a maximum, with each of their elements, and those that hang over the end."""
    for name, case in CASES.items():
        (_, _, index), _ = drawn(name, np.float64)
        assert set(index.ravel()) <= {*range(np.prod(case.kernel)), 255}
    (_, _, index), _ = drawn("overlapping", np.float64)
    assert set(index.ravel()) == {*range(9), 255}
    for name in ("hanging-over", "hanging-far-over"):
        case = CASES[name]
        (_, gy, _), _ = drawn(name, np.float64)
        windows = zip(gy.shape[2:], case.step, case.kernel, case.y[2:], strict=True)
        assert any((n - 1) * step + k > size for n, step, k, size in windows)


@both_types
def test_any_number_of_rows(level, dtype):
    """Blocks of up to six rows."""
    for rows in range(1, 14):
        case = Case((2, 2, rows + 4, 7), (2, 2, rows, 2))
        arrays = draw(case, dtype, positive=False)
        check(sums(case, *arrays), case, *arrays)


@both_types
def test_any_length_of_rows(level, dtype):
    """Half a vector, a vector, two, and more, at each level; with an even and an odd number of windows."""
    for across, channels in ((1, 1), (2, 1), (3, 1), (2, 2), (5, 1), (2, 3), (1, 7), (8, 1), (3, 3), (5, 3), (4, 4)):
        for width in (across + 3, across + 5):
            case = Case((2, channels, 9, width), (2, channels, 7, across))
            arrays = draw(case, dtype, positive=False)
            check(sums(case, *arrays), case, *arrays)
    for across, channels in ((17, 1), (6, 4), (5, 5), (4, 8), (33, 1), (8, 6), (7, 7), (13, 5), (9, 11)):
        case = Case((1, channels, 6, across + 5), (2, channels, 3, across))
        arrays = draw(case, dtype, positive=False)
        check(sums(case, *arrays), case, *arrays)


@pytest.mark.parametrize("name", ["second", "several-bands", "bands-of-one-row", "more-images-than-chunks"])
def test_the_number_of_threads_does_not_change_the_bits(level, name):
    arrays, _ = drawn(name, np.float32)
    results = [b"".join(a.tobytes() for a in sums(CASES[name], *arrays, threads)) for threads in (1, 2, 3, 4, 8)]
    assert len(set(results)) == 1


@both_types
def test_the_number_of_an_element_that_is_none_passes_nothing_on(level, dtype):
    """255, where a positive part is 0, and every other number from the window's elements on."""
    for case in (CASES["overlapping"], CASES["second"], CASES["one-column"]):
        x, gy, index = draw(case, dtype)
        nowhere = index == 255
        assert 0 < nowhere.sum() < index.size
        index[nowhere] = np.resize([255, np.prod(case.kernel), 254, 100], nowhere.sum())
        clean = sums(case, x, np.where(nowhere, dtype(0), gy), index)
        check(clean, case, x, gy, index)
        for bad in (np.nan, np.inf, -np.inf):
            for a, right in zip(sums(case, x, np.where(nowhere, dtype(bad), gy), index), clean, strict=True):
                np.testing.assert_array_equal(a, right)


@both_types
def test_what_is_not_finite_in_a_gradient_reaches_its_filter_only(level, dtype):
    case = Case((2, 3, 8, 9), (3, 3, 3, 2))
    x, gy, index = draw(case, dtype, positive=False)
    x = np.abs(x) + 1
    for place in np.ndindex(gy.shape):
        for bad in (np.nan, np.inf):
            g = gy.copy()
            g[place] = bad
            gw, gb = sums(case, x, g, index)
            others = np.arange(3) != place[1]
            assert np.isfinite(gw[others]).all() and np.isfinite(gb[others]).all()
            np.testing.assert_array_equal(gw[place[1]], np.full(case.w[1:], bad))
            np.testing.assert_array_equal(gb[place[1]], bad)


@both_types
@pytest.mark.parametrize("across", [1, 3, 9])
def test_what_is_not_finite_in_x_stays_in_its_taps(level, across, dtype):
    """Vectors reach behind the end of a filter's row."""
    case = Case((2, 2, 8, across + 7), (3, 2, 7, across))
    x, gy, index = draw(case, dtype, positive=False)
    for place in ((0, 0, 0, 0), (0, 1, 3, across + 6), (1, 0, 7, across + 2), (1, 1, 2, 2)):
        bad = x.copy()
        bad[place] = np.nan
        gw, gb = sums(case, bad, gy, index)
        g, *_ = reference(case, x, gy, index)
        meets = BASE.conv_weight_grad(np.ceil(np.abs(g)), np.isnan(bad) * 1.0, case.w, (1, 1), case.padding, (1, 1), 1)
        np.testing.assert_array_equal(np.isnan(gw), meets > 0)
        assert np.isfinite(gb).all()


@both_types
def test_any_byte_in_index_reads_inside_of_the_arrays(level, rng, dtype):
    """What lies around them is NaN, or for the index an element's number."""
    for case in (CASES["overlapping"], CASES["dilated"], CASES["strides-3-and-4"], CASES["not-square"]):
        x, gy, index = draw(case, dtype)
        index = rng.integers(0, 256, index.shape, np.uint8)
        index[0, 0] %= 4
        gw, gb = np.full(case.w, np.nan, dtype), np.full(case.w[:1], np.nan, dtype)
        conv_pooled.weight_grad(between(gy, np.nan), between(index, 0), surrounded(x), gw, gb, *case.how, 2)
        check((gw, gb), case, x, gy, index)


def test_sizes_that_do_not_belong_together_are_read_as_zeros(level, rng):
    """Never out of bounds: AddressSanitizer watches."""
    x = surrounded(np.ones((2, 2, 3, 4)))
    index = last(rng.integers(0, 256, (2, 3, 9, 11), np.uint8))
    gy, gw, gb = last(np.ones(index.shape)), np.full((3, 2, 7, 5), np.nan), np.full(3, np.nan)
    for stride, padding in (((1, 1), (0, 0)), ((4, 3), (30, 2)), ((1, 2), (0, 60))):
        for how in (((2, 2), (2, 2), (1, 1)), ((15, 17), (1, 3), (5, 4)), ((255, 1), (40, 1), (1, 50))):
            gw[...], gb[...] = np.nan, np.nan
            conv_pooled.weight_grad(gy, index, x, gw, gb, stride, padding, *how, 2)
            assert np.isfinite(gw).all() and gw.max() <= gy[:, 0].size
            np.testing.assert_array_equal(gb, (index < np.prod(how[0])).sum((0, 2, 3)))


@both_types
def test_gradients_of_any_strides(level, dtype):
    """Between the numbers of gw, and around those of gb, nothing is written; nor to the other arrays."""
    case = CASES["second"]
    x, gy, index = (last(a) for a in drawn("second", dtype)[0])
    expected = sums(case, x, gy, index)
    wide, memory = np.full([2 * n for n in case.w], np.nan, dtype), np.full(case.w[0] + 32, np.nan, dtype)
    views = {
        "holes": wide[::2, ::2, ::2, ::2],
        "backwards": np.full(case.w, np.nan, dtype)[::-1, ::-1, ::-1, ::-1],
        "channels-last": last(np.full(case.w, np.nan, dtype)),
        "turned": np.full(case.w[::-1], np.nan, dtype).T,
    }
    before = [a.copy() for a in (x, gy, index)]
    for gw in views.values():
        gb = memory[16:-16]
        gb[...] = np.nan
        conv_pooled.weight_grad(gy, index, x, gw, gb, *case.how, 2)
        np.testing.assert_array_equal(gw, expected[0])
        np.testing.assert_array_equal(gb, expected[1])
        assert np.isnan(memory[:16]).all() and np.isnan(memory[-16:]).all()
    assert np.isfinite(wide).sum() == views["holes"].size
    for a, b in zip((x, gy, index), before, strict=True):
        np.testing.assert_array_equal(a, b)


@both_types
def test_read_only_arrays_are_read(level, dtype):
    case = CASES["lenet"]
    (x, gy, index), expected = drawn("lenet", dtype)
    gy, index = last(gy), last(index)
    gy.flags.writeable = index.flags.writeable = False
    gw, gb = np.empty(case.w, dtype), np.empty(case.w[:1], dtype)
    conv_pooled.weight_grad(gy, index, holes(x), gw, gb, *case.how, 1)
    for a, right in zip((gw, gb), expected, strict=True):
        np.testing.assert_allclose(a, right, rtol=0, atol=TOLERANCE[dtype] * np.abs(right).max())


@both_types
@pytest.mark.parametrize("pooled", [(0, 3, 2, 2), (2, 3, 0, 2), (2, 3, 2, 0), (0, 3, 0, 0)])
def test_nothing_to_sum(level, pooled, dtype):
    gw, gb = np.full((3, 2, 3, 3), np.nan, dtype), np.full(3, np.nan, dtype)
    arrays = np.ones(pooled, dtype), np.zeros(pooled, np.uint8), np.ones((pooled[0], 2, 6, 6), dtype)
    conv_pooled.weight_grad(*arrays, gw, gb, (1, 1), (0, 0), (2, 2), (2, 2), (1, 1), 3)
    assert (gw == 0).all() and (gb == 0).all()


F = np.float32
GOOD = {
    "gy": last(np.ones((2, 6, 2, 3), F)),
    "index": last(np.zeros((2, 6, 2, 3), np.uint8)),
    "x": np.ones((2, 4, 6, 8), F),
    "gw": np.ones((6, 4, 3, 3), F),
    "gb": np.ones(6, F),
    "stride": (1, 1),
    "padding": (0, 0),
    "kernel": (2, 2),
    "pool_stride": (2, 2),
    "pool_dilation": (1, 1),
    "num_threads": 1,
}
FROZEN, FROZEN_BIAS = np.ones((6, 4, 3, 3), F), np.ones(6, F)
FROZEN.flags.writeable = FROZEN_BIAS.flags.writeable = False
MANY = 2**22 + 1  # filters; what is not written to takes no memory
THREE = {"gy": last(np.ones((2, 6, 2), F)), "x": np.ones((2, 4, 6), F), "gw": np.ones((6, 4, 3), F)}
ERRORS = [
    ({"gw": None}, TypeError, "expected gw to be an array, got None"),
    ({"gw": np.ones((6, 4, 3, 3), int)}, TypeError, "expected gw to be float32 or float64, native and aligned"),
    ({"gw": FROZEN}, ValueError, "expected gw to be writeable"),
    ({"gw": np.ones((6, 4), F)}, ValueError, r"expected gw with 3 to 5 dimensions, got shape \(6, 4\)"),
    ({"gw": np.ones((6, 4, 3), F)}, ValueError, "expected gy, x and gw with 4 dimensions, got 4, 4 and 3"),
    (
        {"gw": np.ones((6, 3, 3, 3), F)},
        ValueError,
        r"expected x \(N, C, ..\), gw .*, got \(2, 4\), \(6, 3\) and \(2, 6\)",
    ),
    ({"gw": np.ones((5, 4, 3, 3), F)}, ValueError, r"expected x \(N, C, ..\), .* got \(2, 4\), \(5, 4\) and \(2, 6\)"),
    ({"x": None}, TypeError, "expected x to be an array, got None"),
    ({"x": np.ones((2, 4, 6, 8))}, TypeError, "expected arrays of one dtype, got x of float64"),
    ({"x": np.ones((2, 4), F)}, ValueError, r"expected x with 3 to 5 dimensions, got shape \(2, 4\)"),
    ({"x": np.ones((2, 4, 1, 6, 8), F)}, ValueError, "expected gy, x and gw with 4 dimensions, got 4, 5 and 4"),
    ({"x": np.ones((3, 4, 6, 8), F)}, ValueError, r"expected x \(N, C, ..\), .* got \(3, 4\), \(6, 4\) and \(2, 6\)"),
    ({"x": np.zeros((2, 4, 6, 8), [("a", F), ("b", "b")])["a"]}, TypeError, r"expected x .* \(unaligned\)"),
    ({"gy": GOOD["gy"].astype(float)}, TypeError, "expected arrays of one dtype, got gy of float64"),
    ({"gy": np.ones((2, 6, 2, 3), F)}, ValueError, "expected gy to be channels-last in memory"),
    (THREE, ValueError, "expected gy, x and gw with 4 dimensions, got 3, 3 and 3"),
    ({"index": None}, TypeError, "expected index to be an array, got None"),
    ({"index": np.zeros((2, 6, 2), np.uint8)}, ValueError, r"expected index with 4 dimensions, got shape \(2, 6, 2\)"),
    ({"gw": np.ones((6, 4, 3, 0), F)}, ValueError, "expected filters of at least one number"),
    (
        {"index": last(np.zeros((2, 6, 3, 2), np.uint8))},
        ValueError,
        r"expected index of gy's shape, got \(2, 6, 3, 2\) and \(2, 6, 2, 3\)",
    ),
    ({"index": last(np.zeros((2, 6, 2, 3), np.int8))}, TypeError, "expected index to be uint8"),
    ({"index": np.zeros((2, 6, 2, 3), np.uint8)}, ValueError, "expected index to be C-contiguous"),
    ({"gb": None}, TypeError, "expected gb to be an array, got None"),
    ({"gb": np.ones(6)}, TypeError, "expected gb to be float32"),
    ({"gb": np.ones(5, F)}, ValueError, r"expected gb with 6 elements, got shape \(5,\)"),
    ({"gb": np.ones(12, F)[::2]}, ValueError, "expected gb to be C-contiguous"),
    ({"gb": FROZEN_BIAS}, ValueError, "expected gb to be writeable"),
    ({"stride": (1,)}, ValueError, r"expected images of 2 dimensions, got stride \(1,\) and windows \(2, 2\)"),
    ({"kernel": (2, 2, 1)}, ValueError, r"expected images of 2 dimensions, .* windows \(2, 2, 1\)"),
    ({"stride": (1, 0)}, ValueError, r"expected stride and dilation >= 1 and padding >= 0, got \(1, 0\), \(1, 1\)"),
    ({"padding": (-1, 0)}, ValueError, r"expected stride .* padding >= 0, got \(1, 1\), \(1, 1\), \(-1, 0\)"),
    ({"padding": (1,)}, ValueError, "expected stride, padding and dilation of 1 to 3 numbers"),
    ({"pool_stride": (2,)}, ValueError, "expected stride, padding and dilation of 1 to 3 numbers"),
    ({"pool_stride": (0, 2)}, ValueError, r"expected stride and dilation >= 1 and padding >= 0, got \(0, 2\)"),
    ({"pool_dilation": (1, 0)}, ValueError, r"expected stride and dilation >= 1 .*, got \(2, 2\), \(1, 0\)"),
    ({"kernel": (0, 2)}, ValueError, r"expected windows of 1 to 255 elements, got \(0, 2\)"),
    ({"kernel": (16, 16)}, ValueError, r"expected windows of 1 to 255 elements, got \(16, 16\)"),
    ({"kernel": (2**62, 4)}, ValueError, "expected windows of 1 to 255 elements"),
    ({"stride": (1, 5000), "pool_stride": (1, 5000)}, ValueError, "expected a band of x that fits into memory"),
    ({"stride": (5000, 1), "pool_dilation": (15000, 1)}, ValueError, "expected a band of x that fits into memory"),
    (
        {"pool_stride": (1, 15000), "kernel": (255, 1), "pool_dilation": (3, 1)},
        ValueError,
        "expected a band of x and the gradient to fit into memory",
    ),
    (
        {
            "gy": np.empty((0, MANY, 1, 1), F),
            "index": np.empty((0, MANY, 1, 1), np.uint8),
            "x": np.empty((0, 1, 4, 1), F),
            "gw": np.empty((MANY, 1, 4, 1), F),
        },
        ValueError,
        "expected a band of x and the gradient to fit into memory",
    ),
    ({"num_threads": 0}, ValueError, "expected num_threads to be at least 1, got 0"),
]


@pytest.mark.parametrize(("change", "error", "message"), ERRORS)
def test_errors(change, error, message):
    with pytest.raises(error, match=f"pooled_weight_grad: {message}"):
        conv_pooled.weight_grad(*(GOOD | change).values())


def test_the_arguments_that_errors_change_are_good():
    gw, gb = np.full((6, 4, 3, 3), np.nan, F), np.full(6, np.nan, F)
    conv_pooled.weight_grad(*(GOOD | {"gw": gw, "gb": gb}).values())
    assert (gw == 12).all() and (gb == 12).all()
