"""Convolution of the CUDA backend on the stand-in: kernels run in the emulator, products in the stand-in's cuBLAS.

Everything is compared with the base backend, which is the specification.
"""

from __future__ import annotations

import numpy as np
import pytest

from nnx import set_conv_precision
from nnx.backends.base import Backend
from nnx.backends.base.conv import output_sizes
from nnx.backends.precision import set_float32_matmul_precision

BASE = Backend()
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


class Case:
    """The numbers of a convolution, and the names of the algorithms of its three passes in float32."""

    def __init__(self, x, w, algorithms, stride=1, padding=0, dilation=1, groups=1):
        n = len(x) - 2
        self.x, self.w, self.algorithms, self.groups = x, w, algorithms, groups
        self.stride, self.dilation = (v if isinstance(v, tuple) else (v,) * n for v in (stride, dilation))
        padding = padding if isinstance(padding, tuple) else (padding,) * n
        self.padding = tuple(p if isinstance(p, tuple) else (p, p) for p in padding)
        self.out = output_sizes(x[2:], w[2:], self.stride, self.padding, self.dilation)
        self.geometry = self.stride, self.padding, self.dilation, groups

    def arrays(self, rng, dtype):
        shapes = self.x, self.w, (self.w[0],), (self.x[0], self.w[0], *self.out)
        return [rng.standard_normal(s).astype(dtype) for s in shapes]


COLUMNS, DEPTHWISE = ("columns",) * 3, ("depthwise",) * 3
PRODUCT, WINOGRAD = ("product",) * 3, ("winograd",) * 3
STRIDED = ("columns", "scattered", "columns")
FEW = ("direct", "direct", "columns")  # few channels in and out

CASES = {
    "1x1": Case((2, 5, 4, 3), (7, 5, 1, 1), PRODUCT),
    "1x1-1d": Case((3, 16, 9), (4, 16, 1), PRODUCT),
    "1x1-one-by-one": Case((3, 20, 1, 1), (9, 20, 1, 1), PRODUCT),
    "1x1-many-pixels": Case((2, 6, 40, 37), (5, 6, 1, 1), PRODUCT),
    "1x1-stride": Case((2, 12, 5, 7), (10, 12, 1, 1), STRIDED, stride=2),
    "1x1-padding": Case((2, 12, 5, 7), (10, 12, 1, 1), COLUMNS, padding=1),
    "3x3": Case((3, 16, 15, 14), (18, 16, 3, 3), WINOGRAD, padding=1),
    "3x3-no-padding": Case((4, 17, 14, 15), (16, 17, 3, 3), WINOGRAD),
    "3x3-much-padding": Case((3, 20, 13, 14), (21, 20, 3, 3), WINOGRAD, padding=(3, (1, 4))),
    "3x3-tiny-maps": Case((40, 16, 4, 4), (16, 16, 3, 3), WINOGRAD, padding=1),
    "3x3-many-channels": Case((9, 130, 8, 8), (70, 130, 3, 3), WINOGRAD, padding=1),
    "1x3x3": Case((2, 16, 3, 14, 13), (17, 16, 1, 3, 3), WINOGRAD, padding=(0, 1, 2)),
    "1x3x3-padded-planes": Case((2, 16, 3, 14, 13), (17, 16, 1, 3, 3), COLUMNS, padding=1),
    "3x3-few-pixels": Case((2, 16, 6, 6), (16, 16, 3, 3), COLUMNS, padding=1),
    "3x3-15-channels": Case((9, 15, 8, 8), (16, 15, 3, 3), COLUMNS, padding=1),
    "3x3-stride": Case((9, 16, 16, 16), (16, 16, 3, 3), STRIDED, stride=2, padding=1),
    "3x3-dilation": Case((9, 16, 12, 12), (16, 16, 3, 3), COLUMNS, padding=2, dilation=2),
    "3x3-groups": Case((9, 32, 8, 8), (32, 16, 3, 3), COLUMNS, padding=1, groups=2),
    "few-channels": Case((2, 3, 11, 13), (20, 3, 3, 3), ("direct", "columns", "columns"), padding=1),
    "one-channel": Case((2, 1, 28, 28), (6, 1, 5, 5), ("direct", "direct", "depthwise")),
    "one-channel-many-filters": Case((2, 1, 9, 8), (300, 1, 2, 3), ("direct", "columns", "depthwise"), padding=1),
    "one-filter": Case((2, 9, 6, 5), (1, 9, 3, 2), ("columns", "direct", "columns")),
    "lenet-2": Case((2, 6, 12, 12), (16, 6, 5, 5), ("direct", "columns", "columns")),
    "few-stride": Case(
        (3, 3, 17, 18), (9, 3, 3, 4), ("direct", "scattered", "columns"), stride=(2, 3), padding=(1, (0, 2))
    ),
    "few-dilation": Case((2, 2, 12, 13), (8, 2, 3, 2), FEW, padding=2, dilation=(2, 3)),
    "few-1d": Case((3, 4, 300), (7, 4, 9), FEW, padding=4),
    "few-3d": Case((2, 2, 5, 6, 7), (3, 2, 2, 3, 2), FEW, padding=1),
    "many-taps": Case((2, 4, 20, 21), (3, 4, 9, 9), ("columns", "direct", "columns"), padding=3),
    "kernel-of-input-size": Case((3, 10, 4, 5), (9, 10, 4, 5), COLUMNS),
    "1d": Case((3, 12, 41), (10, 12, 4), COLUMNS, padding=((3, 1),)),
    "1d-all": Case((2, 20, 31), (18, 10, 3), STRIDED, stride=2, padding=3, dilation=2, groups=2),
    "3d": Case((2, 9, 4, 5, 6), (10, 9, 2, 3, 2), COLUMNS, padding=1),
    "3d-all": Case((2, 4, 6, 5, 7), (2, 2, 2, 2, 3), STRIDED, (2, 1, 2), (1, 0, 2), (1, 2, 1), groups=2),
    "groups": Case((2, 12, 7, 8), (9, 4, 3, 3), COLUMNS, padding=1, groups=3),
    "groups-stride": Case((3, 12, 9, 8), (9, 4, 3, 2), STRIDED, stride=(2, 3), padding=(2, 1), groups=3),
    "groups-one-filter-each": Case((2, 12, 6, 5), (3, 4, 3, 3), COLUMNS, padding=1, groups=3),
    "stride-beyond-kernel": Case((2, 10, 14, 15), (9, 10, 2, 2), STRIDED, stride=(4, 5)),
    "padding-beyond-kernel": Case((2, 10, 3, 2), (9, 10, 2, 2), COLUMNS, padding=4),
    "depthwise": Case((2, 5, 9, 8), (5, 1, 3, 3), DEPTHWISE, padding=1, groups=5),
    "depthwise-multiple": Case((2, 4, 9, 8), (12, 1, 3, 4), DEPTHWISE, (2, 1), (1, 2), (1, 2), groups=4),
    "depthwise-wide": Case((2, 300, 5, 4), (300, 1, 3, 3), DEPTHWISE, padding=1, groups=300),
    "depthwise-1d": Case((3, 7, 50), (7, 1, 11), DEPTHWISE, stride=3, padding=5, groups=7),
    "depthwise-3d": Case((2, 3, 4, 5, 6), (6, 1, 2, 2, 3), DEPTHWISE, padding=(1, 0, 2), groups=3),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@pytest.fixture
def conv(cuda):
    """The module, on the stand-in."""
    from nnx.backends.cuda import conv

    return conv


@pytest.fixture
def winograd(conv):
    from nnx.backends.cuda import winograd

    return winograd


@pytest.fixture
def backend(cuda, conv):
    from nnx.backends.cuda.gemm import GemmCUDA

    class Ours(conv.ConvCUDA, GemmCUDA, Backend):
        xp = cuda

    return Ours()


def last(a):
    """The same values, channels-last in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)


def passes(backend, case, x, w, b, gy, relu=False):
    """The results of the three passes and of the bias gradient, of either backend."""
    return [
        backend.conv(x, w, b, *case.geometry, relu),
        backend.conv_data_grad(gy, w, case.x, *case.geometry),
        backend.conv_weight_grad(gy, x, case.w, *case.geometry),
        backend.channel_sum(gy),
    ]


def tolerance(case, dtype):
    """Relative to the largest value: rounding of sums of at most 10,000 products, and what Winograd promises."""
    if dtype == np.float64:
        return 1e-10
    return 2e-4 if "winograd" in case.algorithms else 2e-5


def check(cuda, backend, case, arrays, relu=False):
    dtype = arrays[0].dtype
    moved = [None if a is None else cuda.asarray(a) for a in arrays]
    got = [a.get() for a in passes(backend, case, *moved, relu)]
    want = passes(BASE, case, *arrays, relu)
    for name, g, e in zip(("y", "gx", "gw", "gb"), got, want, strict=True):
        assert g.shape == e.shape and g.dtype == e.dtype == dtype, name
        np.testing.assert_allclose(g, e, rtol=0, atol=tolerance(case, dtype) * max(abs(e).max(), 1e-3), err_msg=name)
    for before, after in zip(arrays, moved, strict=True):
        assert before is None or before.tobytes() == after.get().tobytes(), "an input was written to"
    return got


# -- values ----------------------------------------------------------------------------------------


@each_case
def test_agrees_with_base(cuda, backend, case, rng):
    """Both types, both orders in memory, with and without bias and ReLU."""
    for dtype in (np.float32, np.float64):
        x, w, b, gy = case.arrays(rng, dtype)
        check(cuda, backend, case, [x, w, b, gy])
        check(cuda, backend, case, [last(x), w, None, last(gy)])
        check(cuda, backend, case, [last(x), w, b, gy], relu=True)
    check(cuda, backend, case, [x, w, None, gy], relu=True)


def test_many_shapes(cuda, backend):
    rng = np.random.default_rng(7)
    for _ in range(60):
        n, groups = int(rng.integers(1, 4)), int(rng.choice([1, 1, 2, 3]))
        channels, filters = int(rng.integers(1, 13)), int(rng.integers(1, 10))
        size, kernel, stride, dilation = (
            tuple(int(v) for v in rng.integers(1, high, n)) for high in ((40, 13, 7)[n - 1], 4, 4, 3)
        )
        padding = tuple((int(low), int(high)) for low, high in rng.integers(0, 4, (n, 2)))
        w = (filters * groups, channels, *kernel)
        case = Case((int(rng.integers(1, 4)), channels * groups, *size), w, (), stride, padding, dilation, groups)
        if min(case.out) > 0:
            check(
                cuda, backend, case, case.arrays(rng, rng.choice([np.float32, np.float64])), relu=bool(rng.integers(2))
            )


def test_results_are_channels_last_and_the_same_bits_each_time(cuda, backend, rng):
    for case in CASES.values():
        arrays = [cuda.asarray(a) for a in case.arrays(rng, np.float32)]
        first, second = (passes(backend, case, *arrays) for _ in range(2))
        for a, b in zip(first, second, strict=True):
            assert a.get().tobytes() == b.get().tobytes()
        for a in first[:2]:
            assert cuda.moveaxis(a, 1, -1).flags.c_contiguous


@each_dtype
@pytest.mark.parametrize("name", ["1x1", "3x3", "few-1d", "3x3-groups", "1d", "3x3-stride", "depthwise"])
def test_views(cuda, backend, name, dtype, rng):
    """Every other element, a broken alignment, read from inside of a larger array, broadcast."""
    case = CASES[name]
    x, w, b, gy = case.arrays(rng, dtype)
    want = passes(BASE, case, x, w, b, gy)

    def wide(a):
        out = cuda.zeros((*a.shape[:-1], 2 * a.shape[-1] + 1), dtype)[..., 1::2]
        out[...] = cuda.asarray(a)
        return out

    def shifted(a):
        flat = cuda.empty(a.size + 1, dtype)[1:]
        out = cuda.moveaxis(flat.reshape(*(a.shape[i] for i in (0, *range(2, a.ndim), 1))), -1, 1)
        out[...] = cuda.asarray(a)
        assert out.data.ptr % 16
        return out

    flat_w, flat_b = (cuda.empty(a.size + 1, dtype)[1:].reshape(a.shape) for a in (w, b))
    flat_w[...], flat_b[...] = cuda.asarray(w), cuda.asarray(b)
    for args in ([wide(x), wide(w), wide(b), wide(gy)], [shifted(x), flat_w, flat_b, shifted(gy)]):
        for g, e in zip(passes(backend, case, *args), want, strict=True):
            np.testing.assert_allclose(g.get(), e, rtol=0, atol=tolerance(case, dtype) * abs(e).max())
    broadcast = cuda.broadcast_to(cuda.asarray(np.full((1,) * gy.ndim, 1.5, dtype)), gy.shape)
    got = backend.conv_data_grad(broadcast, cuda.asarray(w), case.x, *case.geometry).get()
    expected = BASE.conv_data_grad(np.full_like(gy, 1.5), w, case.x, *case.geometry)
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance(case, dtype) * abs(expected).max())


def test_nothing_in_the_batch(cuda, backend, rng):
    for case in CASES.values():
        empty = Case((0, *case.x[1:]), case.w, (), case.stride, case.padding, case.dilation, case.groups)
        arrays = empty.arrays(rng, np.float32)
        got = passes(backend, empty, *(cuda.asarray(a) for a in arrays))
        for g, e in zip(got, passes(BASE, empty, *arrays), strict=True):
            assert g.shape == e.shape and g.dtype == e.dtype
            np.testing.assert_array_equal(g.get(), e)


@pytest.mark.parametrize("name", ["1x1", "few-channels", "one-channel", "1d", "3x3-stride", "groups", "depthwise"])
def test_what_is_not_finite_arrives_where_base_has_it(cuda, backend, name, rng):
    case = CASES[name]
    for value, relu in ((np.nan, False), (np.nan, True), (np.inf, False), (-np.inf, True)):
        x, w, b, gy = case.arrays(rng, np.float32)
        x.reshape(-1)[x.size // 2] = gy.reshape(-1)[gy.size // 3] = value
        got = passes(backend, case, *(cuda.asarray(a) for a in (x, w, b, gy)), relu)
        for g, e in zip(got, passes(BASE, case, x, w, b, gy, relu), strict=True):
            np.testing.assert_allclose(g.get(), e, rtol=1e-4, atol=1e-4)


def test_winograd_keeps_what_is_not_finite_in_its_tiles(cuda, backend, rng):
    case = CASES["3x3"]
    x, w, b, _ = case.arrays(rng, np.float32)
    x[1, 3, 7, 6] = np.nan
    y = backend.conv(*(cuda.asarray(a) for a in (x, w, b)), *case.geometry, True).get()
    want = BASE.conv(x, w, b, *case.geometry, True)
    assert np.isnan(y[np.isnan(want)]).all()
    assert np.isfinite(y[[0, 2]]).all() and np.isfinite(y[1, :, 12:]).all()


def test_types_without_a_kernel(cuda, backend, rng):
    case = CASES["3d-all"]
    x, w, b, gy = case.arrays(rng, np.float64)
    mixed = [cuda.asarray(a) for a in (x.astype(np.float32), w, b, gy)]
    want = passes(BASE, case, x.astype(np.float32), w, b, gy)
    for g, e in zip(passes(backend, case, *mixed), want, strict=True):
        assert g.dtype == e.dtype
        np.testing.assert_allclose(g.get(), e, rtol=1e-12, atol=1e-12)


# -- what runs -------------------------------------------------------------------------------------


def chosen(conv, case, fast):
    """The names of the algorithms of the three passes."""
    g = conv._geometry(case.x, case.w, (case.x[0], case.w[0], *case.out), *case.geometry)
    return tuple(f(g, fast) for f in (conv._forward_algorithm, conv._data_algorithm, conv._weight_algorithm))


def test_algorithms(conv):
    for name, case in CASES.items():
        for fast in ("highest", "high", "medium"):
            assert chosen(conv, case, fast) == case.algorithms, name
        assert chosen(conv, case, None) == tuple("columns" if n == "winograd" else n for n in case.algorithms), name


def test_winograd_where_its_error_is_allowed(cuda, conv):
    single, double = cuda.zeros(1, "float32"), cuda.zeros(1, "float64")
    assert conv._fast(single) == "highest" and conv._fast(double) is None
    with set_conv_precision("high"):
        assert conv._fast(single) is None
    with set_float32_matmul_precision("medium"):
        assert conv._fast(single) == "medium"


def test_rounded_columns_for_many_channels(conv):
    many = Case((2, 512, 32, 32), (512, 512, 3, 3), (), padding=1)
    assert chosen(conv, many, "highest") == chosen(conv, many, "medium") == WINOGRAD
    assert chosen(conv, many, "high") == COLUMNS
    assert chosen(conv, Case((2, 1100, 32, 32), (1000, 1100, 3, 3), (), padding=1), "highest") == COLUMNS


def test_launches(cuda, backend, conv, monkeypatch, rng):
    """A pass is a handful of launches."""
    from standin import cublas

    from nnx.backends.cuda._kernels import Kernels

    names = []
    launch = Kernels.launch
    monkeypatch.setattr(Kernels, "launch", lambda self, name, *args: (names.append(name), launch(self, name, *args))[1])

    def run(name, which):
        arrays = [cuda.asarray(last(a)) if a.ndim > 1 else cuda.asarray(a) for a in CASES[name].arrays(rng, np.float32)]
        names.clear()
        products = cublas.watch()
        x, w, b, gy = arrays
        case = CASES[name]
        if which == "forward":
            backend.conv(x, w.copy(), b, *case.geometry, True)
        elif which == "data":
            backend.conv_data_grad(gy, w.copy(), case.x, *case.geometry)
        else:
            backend.conv_weight_grad(gy, x, case.w, *case.geometry)
        return [n.replace("_packs", "") for n in names], len(products)

    assert run("3x3", "forward") == (["winograd_filter", "winograd_input", "winograd_output"], 1)
    assert run("3x3", "data") == (["winograd_filter", "winograd_input", "winograd_output"], 1)
    assert run("3x3", "weight") == (["winograd_input", "winograd_gradient", "winograd_weight"], 1)
    assert run("1x1", "forward") == (["bias_relu"], 1)
    assert run("1x1", "data") == ([], 1)
    assert run("few-channels", "forward") == (["direct"], 0)
    assert run("3x3-groups", "forward") == (["rearrange", "im2col", "bias_relu"], 1)
    assert run("3x3-groups", "data") == (["rearrange", "im2col"], 1)
    assert run("3x3-groups", "weight") == (["im2col", "sum_parts"], 1)
    assert run("3x3-stride", "data") == (["rearrange", "col2im"], 1)
    assert run("depthwise", "forward") == (["rearrange", "depthwise"], 0)
    assert run("depthwise", "weight") == (["depthwise_weight", "sum_parts"], 0)


# -- pieces ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["3x3", "3x3-much-padding", "3x3-groups", "1d-all", "groups-stride", "few-1d", "3d"])
@pytest.mark.parametrize("bytes", [3000, 20000, 60000])
def test_chunks(cuda, backend, conv, winograd, monkeypatch, name, bytes, rng):
    """Bounded workspaces: rows, images and tiles a few at a time, or one if it is too large."""
    for module in (conv, winograd):
        monkeypatch.setattr(module, "_WORKSPACE", bytes * (40 if module is winograd else 1))
        monkeypatch.setattr(module, "_SHORTEST_SUM", 16)
    case = CASES[name]
    check(cuda, backend, case, case.arrays(rng, np.float32), relu=True)


@pytest.mark.parametrize("name", ["1x1-many-pixels", "few-1d", "depthwise", "depthwise-wide", "3x3-tiny-maps", "3x3"])
@pytest.mark.parametrize("shortest", [3, 40, 500])
def test_sums_cut_into_parts(cuda, backend, conv, winograd, monkeypatch, name, shortest, rng):
    for module in (conv, winograd):
        monkeypatch.setattr(module, "_SHORTEST_SUM", shortest)
        monkeypatch.setattr(module, "_BLOCKS", 5000)
    monkeypatch.setattr(conv, "_CHUNK", shortest)
    case = CASES[name]
    check(cuda, backend, case, case.arrays(rng, np.float32))


@pytest.mark.parametrize("name", ["1x1-1d", "3x3", "few-stride", "1d", "3d", "groups-stride", "depthwise-1d"])
def test_batches_beyond_32_bits_go_in_parts(cuda, backend, conv, monkeypatch, name, rng):
    case = CASES[name]
    largest = max(np.prod(case.x[1:]), case.w[0] * np.prod(case.out))
    monkeypatch.setattr(conv, "_INDEX", int(2 * largest))  # two images
    check(cuda, backend, case, case.arrays(rng, np.float32), relu=True)
    monkeypatch.setattr(conv, "_INDEX", int(largest) - 1)  # not even one: the base's way
    check(cuda, backend, case, case.arrays(rng, np.float32), relu=True)


@pytest.mark.parametrize(
    "shape", [(3, 1, 2), (5, 4), (2, 300, 9), (2, 17, 33, 35), (2, 2, 3, 4, 5), (0, 3, 4), (40000, 6)]
)
@each_dtype
def test_channel_sum(cuda, backend, shape, dtype, rng):
    gy = rng.standard_normal(shape).astype(dtype)
    want = BASE.channel_sum(gy.astype(np.float64))
    for a in (gy, last(gy)):
        got = backend.channel_sum(cuda.asarray(a)).get()
        assert got.dtype == dtype
        # each sum has at most 70,000 terms of size 1, in parts of at most a few hundred
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-10 if dtype == np.float64 else 2e-4)


# -- errors that are promised ----------------------------------------------------------------------


def test_winograd_error(cuda, backend, rng):
    """Below 1e-4 of the result's RMS, for the kind of numbers that networks have."""
    case = Case((2, 64, 20, 20), (64, 64, 3, 3), WINOGRAD, padding=1)
    x, w, b, gy = (a.astype(np.float32) for a in case.arrays(rng, np.float64))
    x = np.maximum(x, 0)
    w *= np.float32((2 / (64 * 9)) ** 0.5)
    want = passes(BASE, case, *(a.astype(np.float64) for a in (x, w, b, gy)))[:3]
    got = passes(backend, case, *(cuda.asarray(a) for a in (x, w, b, gy)))[:3]
    for g, e in zip(got, want, strict=True):
        assert abs(g.get() - e).max() < 1e-4 * np.sqrt((e**2).mean())


@pytest.mark.parametrize("precision, bound", [("high", 1e-4), ("medium", 0.1)])
def test_winograd_error_of_rounded_products(cuda, backend, precision, bound, rng):
    """At "high" products are float32's; at "medium" TF32's, with 3e-3 of the result's RMS on average."""
    case = Case((2, 32, 16, 16), (48, 32, 3, 3), WINOGRAD, padding=1)
    x, w, b, gy = case.arrays(rng, np.float32)
    want = passes(BASE, case, *(a.astype(np.float64) for a in (x, w, b, gy)))[:3]
    with set_float32_matmul_precision(precision):
        got = passes(backend, case, *(cuda.asarray(a) for a in (x, w, b, gy)))[:3]
    for g, e in zip(got, want, strict=True):
        error, rms = g.get() - e, np.sqrt((e**2).mean())
        assert abs(error).max() < bound * rms and np.sqrt((error**2).mean()) < 5e-3 * rms


@pytest.mark.parametrize("precision, share", [("high", 2**-9), ("medium", 2**-6)])
@pytest.mark.parametrize("name", ["1x1", "1d", "groups-stride"])
def test_rounded_products(cuda, backend, name, precision, share, rng):
    """2^(2-p) of the sum of sizes, with p = 11 and 8 bits; and the rounding does happen."""
    case = CASES[name]
    x, w, b, gy = case.arrays(rng, np.float32)
    with set_float32_matmul_precision(precision):
        got = passes(backend, case, *(cuda.asarray(a) for a in (x, w, b, gy)))
    want = passes(BASE, case, *(a.astype(np.float64) for a in (x, w, b, gy)))
    sizes = passes(BASE, case, *(abs(a).astype(np.float64) for a in (x, w, b, gy)))
    for g, e, size in zip(got[:3], want[:3], sizes[:3], strict=True):
        error = abs(g.get() - e)
        assert (error <= share * size).all() and error.max() > share / 1000 * size.max()


# -- graphs ----------------------------------------------------------------------------------------


def test_capture(cuda, backend, rng):
    """All three passes are recorded and replayed on new values: nothing waits for the device."""
    for name in ("1x1", "3x3", "few-channels", "groups-stride", "3x3-groups", "one-channel", "depthwise"):
        case = CASES[name]
        arrays = case.arrays(rng, np.float32)
        moved = [cuda.asarray(a) for a in arrays]
        stream = cuda.cuda.Stream(non_blocking=True)
        pool = cuda.cuda.MemoryPool()  # of the graph alone: it uses its scratch memory at each replay
        with stream:
            passes(backend, case, *moved)  # what is made once (handles, modules) is made here
            with cuda.cuda.using_allocator(pool.malloc):
                stream.begin_capture()
                results = passes(backend, case, *moved)
                graph = stream.end_capture()
            for a, new in zip(moved, case.arrays(rng, np.float32), strict=True):
                a[...] = cuda.asarray(new)
            graph.launch(stream)
        want = passes(BASE, case, *(a.get() for a in moved))
        for g, e in zip(results, want, strict=True):
            np.testing.assert_allclose(g.get(), e, rtol=0, atol=tolerance(case, np.float32) * abs(e).max())
