"""ext/direct.pyx against the base backend, at every level, over random geometries."""

from __future__ import annotations

import numpy as np
import pytest

from cases._layouts import empty_last, holes, last
from nnx._ext import direct, direct_data, direct_weight
from nnx.backends.base import Backend

BASE = Backend()
# relative to the largest result; sums of up to some thousand products
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}


def check(actual, expected, dtype):
    largest = max(np.abs(expected).max(initial=0), 1e-30)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[dtype] * largest)


def passes(x, w, b, gy, stride, padding, dilation, threads=2, layout=np.asarray, groups=1):
    y, gx = empty_last(gy.shape, x.dtype), empty_last(x.shape, x.dtype)
    gw = np.full(w.shape, np.nan, x.dtype)
    direct.forward(layout(x), layout(w), b, y, stride, padding, dilation, groups, False, threads)
    if x.ndim < 5 and (groups == 1 or groups == w.shape[0] == x.shape[1]):
        direct_data.data_grad(last(gy), layout(w), None, gx, stride, padding, dilation, groups, threads)
    direct_weight.weight_grad(last(gy), layout(x), gw, stride, padding, dilation, groups, threads)
    return y, gx, gw


def draw(rng, number, dims):
    """A random convolution; the number picks the kinds that random draws would miss."""
    channels, filters = int(rng.integers(1, 9)), int(rng.integers(1, 40))
    if number % 4 == 0:
        channels = 1
    if number % 5 == 0:
        channels, filters = int(rng.integers(17, 50)), int(rng.choice([16, 32, 64, 70]))
    kernel = [int(v) for v in rng.integers(1, 6 if dims < 3 else 4, dims)]
    stride = [int(v) for v in rng.integers(1, 4, dims)]
    dilation = [int(v) for v in rng.integers(1, 3, dims)]
    padding = [tuple(int(v) for v in rng.integers(0, 4, 2)) for _ in range(dims)]
    if number % 3 == 0:
        padding = [(0, 0)] * dims  # images are read in place
    sizes = [
        max(int(rng.integers(1, 36 if dims < 3 else 12)), (k - 1) * d + 1 - sum(p))
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    ]
    x = (int(rng.integers(1, 4)), channels, *sizes)
    return x, (filters, channels, *kernel), tuple(stride), tuple(padding), tuple(dilation)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("number", range(16))
def test_three_passes(level, dims, number, dtype):
    rng = np.random.default_rng([dims, number])
    x_shape, w_shape, stride, padding, dilation = draw(rng, number, dims)
    x, w = rng.standard_normal(x_shape).astype(dtype), rng.standard_normal(w_shape).astype(dtype)
    b = rng.standard_normal(w_shape[0]).astype(dtype)
    y = BASE.conv(x, w, b, stride, padding, dilation, 1)
    gy = rng.standard_normal(y.shape).astype(dtype)
    gx = BASE.conv_data_grad(gy, w, x_shape, stride, padding, dilation, 1)
    gw = BASE.conv_weight_grad(gy, x, w_shape, stride, padding, dilation, 1)
    low = tuple(p[0] for p in padding)
    for layout in (np.ascontiguousarray, last, holes):
        actual = passes(x, w, b, gy, stride, low, dilation, 2, layout)
        for number, expected in enumerate((y, gx, gw)):
            if number != 1 or dims < 3:
                check(actual[number], expected, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("groups", [2, 3, 5, 8, 19, 32, 40])
@pytest.mark.parametrize("inside", ["depthwise", "narrow", "wide"])
def test_groups(level, groups, inside, dtype):
    """With one filter per channel, channels are lanes if there are enough of them; else groups go one by one."""
    rng = np.random.default_rng(groups)
    channels, filters = {"depthwise": (1, 1), "narrow": (2, 3), "wide": (3, 17)}[inside]
    for stride, padding, dilation in (((1, 1), (1, 2), (1, 1)), ((2, 3), (0, 0), (2, 1))):
        x = rng.standard_normal((2, groups * channels, 11, 13)).astype(dtype)
        w = rng.standard_normal((groups * filters, channels, 3, 4)).astype(dtype)
        b = rng.standard_normal(groups * filters).astype(dtype)
        pairs = tuple((p, p) for p in padding)
        expected = BASE.conv(x, w, b, stride, pairs, dilation, groups)
        gy = rng.standard_normal(expected.shape).astype(dtype)
        gw_expected = BASE.conv_weight_grad(gy, x, w.shape, stride, pairs, dilation, groups)
        for layout in (np.ascontiguousarray, last):
            y, gx, gw = passes(x, w, b, gy, stride, padding, dilation, 2, layout, groups)
            check(y, expected, dtype)
            if inside == "depthwise":
                check(gx, BASE.conv_data_grad(gy, w, x.shape, stride, pairs, dilation, groups), dtype)
            check(gw, gw_expected, dtype)
        positive = empty_last(expected.shape, dtype)
        direct.forward(x, w, b, positive, stride, padding, dilation, groups, True, 3)
        np.testing.assert_array_equal(positive, np.where(y <= 0, 0, y))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "kernel", [(1, 1), (2, 1), (1, 3), (2, 2), (5, 1), (2, 3), (7, 1), (2, 4), (3, 3), (2, 5), (1, 5), (5, 5)]
)
def test_depthwise_rows_of_every_length(level, rng, kernel, dtype):
    """Pixels go in blocks of up to 8, taps of up to 9 or in rows of 3 and 5: each number of them, near and far, and
    channels beside whole vectors."""
    channels = 21
    w = rng.standard_normal((channels, 1, *kernel)).astype(dtype)
    for width in range(1, 18):
        stride, dilation = (1 + width % 2, 1 + width // 9), (1, 1 + width % 3 // 2)
        out = (3 * stride[0] + kernel[0] - 1, (width - 1) * stride[1] + (kernel[1] - 1) * dilation[1] + 1)
        x = rng.standard_normal((2, channels, *out)).astype(dtype)
        how = stride, ((0, 0), (0, 0)), dilation, channels
        expected = BASE.conv(x, w, None, *how)
        assert expected.shape[-1] == width
        gy = rng.standard_normal(expected.shape).astype(dtype)
        y, gx, gw = passes(x, w, None, gy, stride, (0, 0), dilation, 2, last, channels)
        check(y, expected, dtype)
        check(gx, BASE.conv_data_grad(gy, w, x.shape, *how), dtype)
        check(gw, BASE.conv_weight_grad(gy, x, w.shape, *how), dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("each", [2, 4, 8, 16])
@pytest.mark.parametrize("kernel", [(1,), (2, 1), (3, 1), (2, 2), (1, 5), (3, 3), (2, 1, 3)])
def test_groups_of_as_many_filters_as_channels(level, rng, each, kernel, dtype):
    """Lanes belong to several groups where groups are small powers of two: rows and taps of every number."""
    dims = len(kernel)
    for channels in (32, 48, 5 * each):
        groups = channels // each
        w = rng.standard_normal((channels, each, *kernel)).astype(dtype)
        b = rng.standard_normal(channels).astype(dtype)
        for width in (1, 3, 4, 7, 8, 14, 17) if channels == 32 else (6,):
            stride, low, dilation = (1 + width % 2,) * dims, (width % 3,) * dims, (1 + width // 8 % 2,) * dims
            x = rng.standard_normal((2, channels, *(2 * k for k in kernel[:-1]), width * stride[0])).astype(dtype)
            how = stride, tuple((p, 1) for p in low), dilation, groups
            expected = BASE.conv(x, w, b, *how)
            gy = rng.standard_normal(expected.shape).astype(dtype)
            gw = BASE.conv_weight_grad(gy, x, w.shape, *how)
            for layout in (np.ascontiguousarray, last):
                y, _, actual = passes(x, w, b, gy, stride, low, dilation, 2, layout, groups)
                check(y, expected, dtype)
                check(actual, gw, dtype)
            positive = empty_last(expected.shape, dtype)
            direct.forward(x, w, b, positive, stride, low, dilation, groups, True, 3)
            np.testing.assert_array_equal(positive, np.where(y <= 0, 0, y))


@pytest.mark.parametrize("each", [1, 2, 4, 8])
def test_what_is_not_finite_stays_in_its_group(level, rng, each):
    x = rng.standard_normal((1, 32, 5, 6)).astype(F)
    x[0, 11] = np.nan
    gy = rng.standard_normal(x.shape).astype(F)
    gy[0, 20] = np.inf
    w = rng.standard_normal((32, each, 3, 3)).astype(F)
    y, _, gw = passes(x, w, None, gy, (1, 1), (1, 1), (1, 1), 2, last, 32 // each)
    group, other = 11 // each, 20 // each
    assert [bool(np.isnan(y[0, f]).any()) for f in range(32)] == [f // each == group for f in range(32)]
    bad = ~np.isfinite(gw).all(axis=(2, 3))
    expected = np.zeros((32, each), bool)
    expected[group * each : (group + 1) * each, 11 % each] = True
    expected[20] = True
    np.testing.assert_array_equal(bad, expected)
    assert group != other


def test_data_grad_of_volumes_is_done_elsewhere():
    gy, gx = empty_last((1, 6, 4, 4, 4), F), empty_last((1, 4, 4, 4, 4), F)
    with pytest.raises(ValueError, match="direct.data_grad: expected images of 1 or 2 dimensions, got 3"):
        direct_data.data_grad(gy, np.ones((6, 4, 1, 1, 1), F), None, gx, (1,) * 3, (0,) * 3, (1,) * 3, 1, 1)


def test_data_grad_takes_one_group_or_one_filter_per_channel():
    gy, gx = empty_last((1, 6, 4, 4), F), empty_last((1, 4, 4, 4), F)
    with pytest.raises(ValueError, match="direct.data_grad: expected 1 group or one filter per channel, got 6 in 2"):
        direct_data.data_grad(gy, np.ones((6, 2, 1, 1), F), None, gx, (1, 1), (0, 0), (1, 1), 2, 1)


@pytest.mark.parametrize(
    ("images", "size"),
    [
        (1, (61, 40)),  # bands of one image
        (40, (5, 6)),  # more images than chunks
        (1, (1, 1)),
        (0, (4, 4)),
    ],
)
def test_the_number_of_threads_does_not_change_the_bits(level, rng, images, size):
    x = rng.standard_normal((images, 3, *size)).astype(np.float32)
    w, b = rng.standard_normal((6, 3, 5, 5)).astype(np.float32), rng.standard_normal(6).astype(np.float32)
    gy = rng.standard_normal((images, 6, *size)).astype(np.float32)
    results = [
        b"".join(a.tobytes() for a in passes(x, w, b, gy, (1, 1), (2, 2), (1, 1), threads))
        for threads in (1, 2, 3, 4, 8)
    ]
    assert len(set(results)) == 1


@pytest.mark.parametrize("filters", [6, 16, 22, 40])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_positive_part(level, rng, filters, dtype):
    """With relu=True the result is that of relu(forward), bit for bit, NaN included."""
    x = rng.standard_normal((2, 3, 9, 7)).astype(dtype)
    x[0, :, 0, 0] = np.nan
    w, b = rng.standard_normal((filters, 3, 3, 3)).astype(dtype), rng.standard_normal(filters).astype(dtype)
    plain, positive = empty_last((2, filters, 9, 7), dtype), empty_last((2, filters, 9, 7), dtype)
    direct.forward(x, w, b, plain, (1, 1), (1, 1), (1, 1), 1, False, 2)
    direct.forward(x, w, b, positive, (1, 1), (1, 1), (1, 1), 1, True, 2)
    assert np.isnan(positive).any() and (positive == 0).any()
    np.testing.assert_array_equal(positive, np.where(plain <= 0, 0, plain))


def test_data_grad_with_bias_is_a_transposed_convolution(level, rng):
    gy = last(rng.standard_normal((2, 6, 4, 4)).astype(np.float32))
    w, bias = rng.standard_normal((6, 5, 3, 3)).astype(np.float32), rng.standard_normal(5).astype(np.float32)
    how = ((2, 2), (1, 1), (1, 1), 1, 2)
    plain, with_bias = empty_last((2, 5, 8, 8), np.float32), empty_last((2, 5, 8, 8), np.float32)
    direct_data.data_grad(gy, w, None, plain, *how)
    direct_data.data_grad(gy, w, bias, with_bias, *how)
    check(with_bias, plain + bias[:, None, None], np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("channels", "dilation"), [(3, 1), (3, 2), (21, 1), (32, 1)])
def test_a_data_gradient_that_is_added_and_cut(level, rng, channels, dilation, dtype):
    """The same bits as one after the other, in rows of sums and in padded images; NaN is no cut."""
    gy = last(rng.standard_normal((3, 7, 6, 4)).astype(dtype))
    w, bias = rng.standard_normal((7, channels, 3, 2)).astype(dtype), rng.standard_normal(channels).astype(dtype)
    shape = (3, channels, 11 + 2 * dilation, 8)
    added, positive = (last(a) for a in rng.standard_normal((2, *shape)).astype(dtype))
    positive[rng.random(shape) < 0.1] = 0
    positive[0, 0] = np.nan
    how = ((2, 2), (1, 0), (dilation, 1), 1, 2)
    for b in (None, bias):
        plain = empty_last(shape, dtype)
        direct_data.data_grad(gy, w, b, plain, *how)
        for a, p in ((added, None), (None, positive), (added, positive)):
            gx = empty_last(shape, dtype)
            direct_data.data_grad(gy, w, b, gx, *how, a, p)
            expected = plain if a is None else a + plain
            np.testing.assert_array_equal(gx, expected if p is None else np.where(p <= 0, 0, expected))


@pytest.mark.parametrize("name", ["added", "positive"])
def test_only_one_group_is_added_to_or_cut(name):
    one, gx = last(np.ones((2, 6, 5, 5), F)), empty_last((2, 6, 5, 5), F)
    with pytest.raises(ValueError, match="direct.data_grad: expected 1 group with added or positive, got 6"):
        how = (1, 1), (1, 1), (1, 1), 6, 1
        direct_data.data_grad(one, np.ones((6, 1, 3, 3), F), None, gx, *how, **{name: one})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_finite_stays_in_its_taps(level, rng, bad, dtype):
    """Vectors are wider than a run of taps: what is computed behind its end must reach nobody."""
    gy = rng.standard_normal((1, 4, 6, 6)).astype(dtype)
    gy[0, 1, 2, 3] = bad
    w = rng.standard_normal((4, 2, 3, 3)).astype(dtype)
    x = rng.standard_normal((1, 2, 8, 8)).astype(dtype)
    gx, gw = empty_last((1, 2, 8, 8), dtype), np.empty_like(w)
    with np.errstate(invalid="ignore"):
        expected = BASE.conv_data_grad(gy, w, gx.shape, (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    direct_data.data_grad(last(gy), w, None, gx, (1, 1), (0, 0), (1, 1), 1, 2)
    np.testing.assert_array_equal(np.isfinite(gx), np.isfinite(expected))
    assert np.isfinite(gx).sum() == 2 * (64 - 9)
    direct_weight.weight_grad(last(gy), x, gw, (1, 1), (0, 0), (1, 1), 1, 2)
    assert not np.isfinite(gw[1]).any() and np.isfinite(gw[[0, 2, 3]]).all()
    y = empty_last((1, 2, 4, 4), dtype)
    direct.forward(gy, w.swapaxes(0, 1).copy(), None, y, (1, 1), (0, 0), (1, 1), 1, False, 2)
    assert np.isfinite(y).sum() == 2 * (16 - 9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("filters", [1, 5, 12, 13, 16, 24, 25, 33, 48])
def test_weight_gradients_with_filters_or_runs_in_lanes(level, rng, filters, dtype):
    """Whichever wastes fewer lanes, with vectors that end with a run and such that do not, padded and in place."""
    for channels, padding, groups in (
        (16, 0, 1),
        (16, 1, 1),
        (20, 1, 1),
        (33, 2, 1),
        (33, 0, 1),
        (16, 1, 2),
        (20, 1, 3),
    ):
        for dilation in (1, 2):
            x = rng.standard_normal((2, channels * groups, 9, 8)).astype(dtype)
            w = np.empty((filters * groups, channels, 3, 2), dtype)
            how = (1, 1), ((padding, padding),) * 2, (1, dilation), groups
            gy = rng.standard_normal((2, filters * groups, 7 + 2 * padding, 8 - dilation + 2 * padding)).astype(dtype)
            expected = BASE.conv_weight_grad(gy, x, w.shape, *how)
            for threads in (1, 3):
                w[...] = np.nan
                direct_weight.weight_grad(
                    last(gy), last(x), w, (1, 1), (padding, padding), (1, dilation), groups, threads
                )
                check(w, expected, dtype)


@pytest.mark.parametrize("filters", [16, 32, 48])
@pytest.mark.parametrize("size", [(1, 7, 7), (3, 30, 30), (40, 14, 14)])
def test_parts_of_a_weight_gradient_have_the_bits_of_the_whole(level, rng, size, filters):
    """How chunks of pixels are cut into parts depends on the number of threads: no sum may."""
    x = rng.standard_normal((size[0], 40, *size[1:])).astype(F)
    gy = rng.standard_normal((size[0], filters, *size[1:])).astype(F)
    results = set()
    for threads in (1, 2, 3, 4, 5, 8, 32):
        gw = np.full((filters, 40, 5, 3), np.nan, F)
        direct_weight.weight_grad(last(gy), last(x), gw, (1, 1), (2, 1), (1, 1), 1, threads)
        results.add(gw.tobytes())
    assert len(results) == 1
    check(gw, BASE.conv_weight_grad(gy, x, gw.shape, (1, 1), ((2, 2), (1, 1)), (1, 1), 1), F)


@pytest.mark.parametrize("filters", [5, 16])
def test_weight_gradients_of_a_group_do_not_meet_its_neighbours(level, rng, filters):
    """Vectors that go on behind the end of a run read numbers of the next group."""
    x = rng.standard_normal((1, 60, 6, 6)).astype(F)
    x[:, 20:40] = np.nan
    gy = rng.standard_normal((1, 3 * filters, 6, 6)).astype(F)
    gw = np.empty((3 * filters, 20, 3, 3), F)
    direct_weight.weight_grad(last(gy), last(x), gw, (1, 1), (1, 1), (1, 1), 3, 2)
    assert np.isnan(gw[filters : 2 * filters]).all()
    assert np.isfinite(gw[:filters]).all() and np.isfinite(gw[2 * filters :]).all()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("groups", [1, 40])
def test_weights_do_not_meet_rows_of_padding(level, rng, dims, groups):
    """What is not finite in a row of taps reaches the pixels under which that row lies in the image, and no others."""
    x = rng.standard_normal((1, 40, *(5,) * dims)).astype(np.float32)
    w = rng.standard_normal((40, 40 // groups, *(3,) * dims)).astype(np.float32)
    w[0, :, 0] = np.nan
    y, ones = empty_last(x.shape, np.float32), (1,) * dims
    direct.forward(last(x), w, None, y, ones, ones, ones, groups, False, 2)
    assert np.isfinite(y[0, 0, 0]).all() and np.isnan(y[0, 0, 1:]).all() and np.isfinite(y[0, 1:]).all()


def test_nothing_is_written_behind_the_result(level, rng):
    """Whole vectors are stored where fewer numbers remain: they must go into scratch memory."""
    w, b = rng.standard_normal((3, 2, 3, 3)), rng.standard_normal(3)
    x = rng.standard_normal((2, 2, 6, 5))
    memory = np.full(2 * 6 * 5 * 3 + 64, 7.0)
    y = memory[32:-32].reshape(2, 6, 5, 3).transpose(0, 3, 1, 2)
    direct.forward(x, w, b, y, (1, 1), (1, 1), (1, 1), 1, False, 1)
    assert (memory[:32] == 7).all() and (memory[-32:] == 7).all()
    memory = np.full(2 * 6 * 5 * 2 + 64, 7.0)
    gx = memory[32:-32].reshape(2, 6, 5, 2).transpose(0, 3, 1, 2)
    direct_data.data_grad(last(y), w, None, gx, (1, 1), (1, 1), (1, 1), 1, 1)
    assert (memory[:32] == 7).all() and (memory[-32:] == 7).all()


@pytest.mark.parametrize("taps", [(0, 3), (3, 0), (0, 0), (0, 2, 2), (2, 0, 2), (2, 2, 0)])
def test_filters_without_taps_give_the_bias(taps):
    """No division by their number, whatever the groups."""
    size, ones = (4,) * len(taps), (1,) * len(taps)
    for groups in (1, 40):
        x, w, b = np.ones((2, 40, *size), F), np.ones((40, 40 // groups, *taps), F), np.arange(40, dtype=F)
        y, gw = empty_last(x.shape, F), np.ones(w.shape, F)
        direct.forward(last(x), w, b, y, ones, (0,) * len(taps), ones, groups, False, 2)
        direct_weight.weight_grad(y, last(x), gw, ones, (0,) * len(taps), ones, groups, 2)
        assert (y == b.reshape(-1, *ones)).all()


def test_sizes_that_could_overflow_are_refused():
    """A result far larger than its image: the band under it would have more numbers than a machine can hold."""
    x, w = np.ones((1, 1, 5, 5)), np.ones((1, 1, 2, 2))
    y, gw = empty_last((1, 1, 9, 9), np.float64), np.ones((1, 1, 2, 2))
    how = ((1 << 24, 1 << 24), (0, 0), (1, 1))
    with pytest.raises(MemoryError, match="direct.forward: no memory for a band of 4 rows with stride"):
        direct.forward(x, w, None, y, *how, 1, False, 1)
    with pytest.raises(MemoryError, match="direct.data_grad: no memory for a band of 4 rows"):
        direct_data.data_grad(y, w, None, last(x), *how, 1, 1)
    with pytest.raises(MemoryError, match="direct.weight_grad: no memory for a band of 4 rows"):
        direct_weight.weight_grad(y, x, gw, *how, 1, 1)


F = np.float32
GOOD = {
    "x": np.ones((2, 4, 5, 5), F),
    "w": np.ones((6, 4, 3, 3), F),
    "bias": None,
    "y": empty_last((2, 6, 5, 5), F),
    "stride": (1, 1),
    "padding": (1, 1),
    "dilation": (1, 1),
    "groups": 1,
    "relu": False,
    "num_threads": 1,
}


def read_only(a):
    a.flags.writeable = False
    return a


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"stride": (1,) * 4}, ValueError, "expected stride, padding and dilation of 1 to 3 numbers"),
        ({"stride": (0, 1)}, ValueError, "expected stride and dilation >= 1 and padding >= 0"),
        ({"padding": (-1, 1)}, ValueError, "expected stride and dilation >= 1 and padding >= 0"),
        ({"dilation": (1 << 25, 1)}, ValueError, "expected stride and dilation >= 1 and padding >= 0"),
        ({"w": np.ones((6, 3, 3, 3), F)}, ValueError, r"expected x \(N, C, ..\), w \(F, C / groups, ..\) and y"),
        ({"groups": 2}, ValueError, r".*in 2 groups, got \(2, 4\), \(6, 4\) and \(2, 6\)"),
        ({"groups": 0}, ValueError, r".*in 0 groups"),
        ({"w": np.ones((6, 4, 2, 3, 3), F)}, ValueError, "expected images of 1 or 2 dimensions like stride, got 3"),
        ({"w": np.ones((6, 4, 2000, 1), F)}, ValueError, "expected filters of at most 1024 runs, got 1x2000x1 taps"),
        ({"w": np.ones((6, 4, 3, 3))}, TypeError, "expected arrays of one dtype, got w of float64"),
        ({"y": np.ones((2, 6, 5, 5), F)}, ValueError, "expected y to be channels-last in memory"),
        ({"y": read_only(empty_last((2, 6, 5, 5), F))}, ValueError, "expected y to be writeable"),
        ({"bias": np.ones(5, F)}, ValueError, "expected a contiguous bias of 6 numbers like x"),
        ({"num_threads": 0}, ValueError, "expected num_threads to be at least 1"),
    ],
)
def test_errors(change, error, message):
    with pytest.raises(error, match=f"direct.forward: {message}"):
        direct.forward(*(GOOD | change).values())
