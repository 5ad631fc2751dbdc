"""Convolution, ReLU and max pooling in one (`CPUBackend.conv_max_pool`): the same bits as in two steps."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

import nnx
from cases._layouts import empty_last, holes, last
from nnx import nn
from nnx._ext import direct, simd, spread
from nnx.backends.base import Backend
from nnx.backends.base.conv import output_sizes
from nnx.backends.cpu import CPUBackend
from nnx.functional import conv2d, max_pool2d, relu

BASE, CPU = Backend(), CPUBackend()
KERNELS = {"spread": spread, "direct": direct}
SQUARES = ((2, 2), (2, 2), (0, 0), (1, 1))
both_types = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.fixture(params=simd.supported_levels())
def level(request):
    """Force each level in turn, with one thread: more of them have a test of their own."""
    nnx.set_num_threads(1)
    previous = simd.force_level(request.param)
    yield request.param
    simd.force_level(previous)


@pytest.fixture
def runs(monkeypatch):
    """The names of the fused kernels that run, and "max_pool" for pooling by itself."""
    names = []

    def spied(owner, attribute, name):
        function = getattr(owner, attribute)
        monkeypatch.setattr(owner, attribute, lambda *arguments: names.append(name) or function(*arguments))

    for name, module in KERNELS.items():
        spied(module, "forward_pooled", name)
    spied(CPUBackend, "max_pool", "max_pool")
    return names


class Case(NamedTuple):
    """A convolution; `few` filters, where fewer are few enough at some levels."""

    x: tuple
    w: tuple
    stride: tuple = (1, 1)
    padding: tuple = ((0, 0), (0, 0))  # low and high, of rows and of columns
    dilation: tuple = (1, 1)
    groups: int = 1
    few: bool = False

    @property
    def how(self):
        return self.stride, self.padding, self.dilation, self.groups

    @property
    def size(self):
        return output_sizes(self.x[2:], self.w[2:], *self.how[:3])

    def kernel(self, dtype):
        few = self.few and self.w[0] <= spread.most_filters(np.dtype(dtype).itemsize)
        return "spread" if few else "direct"


ONES, TWOS = ((1, 1), (1, 1)), ((2, 2), (2, 2))
CASES = {
    "lenet": Case((2, 1, 28, 28), (6, 1, 5, 5), padding=TWOS, few=True),
    "one-filter": Case((2, 3, 11, 9), (1, 3, 3, 4), padding=((0, 2), (3, 1)), few=True),
    "two-filters": Case((1, 2, 16, 17), (2, 2, 7, 7), padding=((6, 0), (0, 3)), few=True),
    "eight-filters": Case((2, 6, 7, 12), (8, 6, 3, 3), few=True),
    "spread-bands": Case((1, 4, 49, 240), (1, 4, 3, 3), padding=ONES, few=True),
    "spread-bands-unpadded": Case((1, 4, 43, 240), (2, 4, 3, 3), few=True),
    "whole-vectors": Case((2, 3, 9, 11), (16, 3, 3, 3), padding=ONES),
    "in-place": Case((2, 3, 35, 8), (9, 3, 3, 3)),
    "in-place-one-image": Case((1, 7, 67, 6), (12, 7, 3, 3)),
    "padded-bands": Case((2, 3, 33, 10), (20, 3, 5, 5), padding=((1, 3), (2, 2))),
    "long-rows": Case((1, 3, 9, 130), (70, 3, 3, 3), padding=ONES),
    "many-images": Case((17, 1, 6, 6), (10, 1, 2, 2)),
    "strides-2-and-3": Case((2, 3, 23, 25), (11, 3, 3, 2), (2, 3), ((1, 0), (0, 2))),
    "strides-3-and-1": Case((2, 5, 100, 12), (17, 5, 4, 3), (3, 1), ((0, 2), (0, 1))),
    "dilation": Case((2, 4, 14, 15), (9, 4, 3, 3), padding=((2, 1), (3, 3)), dilation=(2, 3)),
    "groups": Case((2, 6, 10, 9), (12, 2, 3, 3), padding=ONES, groups=3),
    "depthwise": Case((2, 19, 35, 10), (19, 1, 3, 3), (1, 2), ONES, groups=19),
    "depthwise-few": Case((2, 3, 8, 8), (3, 1, 5, 5), padding=ONES, groups=3),
    "one-tap": Case((2, 5, 6, 7), (9, 5, 1, 1)),
    "far-padding": Case((1, 2, 4, 5), (3, 2, 3, 3), padding=((5, 4), (3, 7))),
}


def crop(a):
    """The same array, channels-last, inside of a larger one of NaN."""
    n, c, *size = a.shape
    view = last(np.full((n, c, *(s + 3 for s in size)), np.nan, a.dtype))[:, :, 1:-2, 2:-1]
    view[...] = a
    return view


def backwards(a):
    return a[:, :, ::-1, ::-1].copy()[:, :, ::-1, ::-1]


LAYOUTS = (np.ascontiguousarray, last, holes, crop, backwards)


@cache
def draw(case, dtype):
    rng = np.random.default_rng(case.x)
    x, w = rng.standard_normal(case.x).astype(dtype), rng.standard_normal(case.w).astype(dtype)
    return x, w, rng.standard_normal(case.w[0]).astype(dtype)


@cache
def draw_integers(case, dtype):
    """Arrays whose sums are exact in any order, with equal numbers within many squares; and NumPy's result."""
    rng = np.random.default_rng(case.x)
    x, w = (rng.integers(-2, 3, shape).astype(dtype) for shape in (case.x, case.w))
    w[w == 0] = 1
    b = rng.integers(-9, 3, case.w[0]).astype(dtype)
    bad = x.copy()
    for number, value in enumerate((np.nan, np.inf, -np.inf, np.nan)):
        bad.reshape(-1)[number * bad.size // 5 :][:2] = value
    return [(v, w, b, BASE.conv_max_pool(v, w, b, *case.how, SQUARES, False)) for v in (x, bad)]


def two_steps(case, x, w, b, windows=SQUARES, ceil_mode=False):
    return Backend.conv_max_pool(CPU, x, w, b, *case.how, windows, ceil_mode)


def bits(a):
    """Integers of the same bits, one of them for all NaN."""
    return np.where(np.isnan(a), a.dtype.type(np.nan), a).view(f"u{a.itemsize}") if a.dtype.kind == "f" else a


def check(actual, expected):
    for a, right in zip(actual, expected, strict=True):
        assert a.shape == right.shape and a.dtype == right.dtype
        np.testing.assert_array_equal(bits(a), bits(right))


def fused(name, case, x, w, b, threads=1):
    """Call the kernel itself."""
    y = empty_last((case.x[0], case.w[0], *(n // 2 for n in case.size)), x.dtype)
    index = last(np.full(y.shape, 77, np.uint8))
    low = tuple(p for p, _ in case.padding)
    how = (low,) if name == "spread" else (case.stride, low, case.dilation, case.groups)
    KERNELS[name].forward_pooled(x, w, b, y, index, case.size, *how, threads)
    return y, index


def separate(name, case, x, w, b):
    """The same kernel's convolution, then the pooling of it."""
    y = empty_last((case.x[0], case.w[0], *case.size), x.dtype)
    low = tuple(p for p, _ in case.padding)
    how = (low,) if name == "spread" else (case.stride, low, case.dilation, case.groups)
    KERNELS[name].forward(x, w, b, y, *how, True, 1)
    return CPU.max_pool(y, *SQUARES, False, True)


# -- the same bits ----------------------------------------------------------------------------------


@both_types
@pytest.mark.parametrize("name", CASES)
def test_the_fused_kernel_gives_the_bits_of_two_steps(level, name, dtype, runs):
    """For every layout of the inputs, with a bias and without; the inputs stay as they are."""
    case = CASES[name]
    x, w, b = draw(case, dtype)
    kept = x.copy(), w.copy(), b.copy()
    for bias, layouts in ((b, LAYOUTS), (None, LAYOUTS[:2])):
        expected = two_steps(case, x, w, bias)
        for layout in layouts:
            arguments = [layout(x), layout(w), bias if bias is None else holes(bias)]
            runs.clear()
            y, index = CPU.conv_max_pool(*arguments, *case.how, SQUARES, False)
            assert runs == [case.kernel(dtype)]
            check((y, index), expected)
            assert all(a.transpose(0, 2, 3, 1).flags.c_contiguous for a in (y, index))
            for a, before in zip(arguments, kept, strict=True):
                assert a is None or np.array_equal(a, before)


@both_types
def test_exact_sums_give_the_bits_of_numpy(level, dtype):
    """With ties, zeros, NaN and infinity."""
    for name, case in CASES.items():
        for x, w, b, expected in draw_integers(case, dtype):
            actual = CPU.conv_max_pool(x, w, b, *case.how, SQUARES, False)
            for a, right in zip(actual, expected, strict=True):
                np.testing.assert_array_equal(a, right, name)


def test_exact_sums_meet_what_they_are_for():
    (_, _, _, (y, index)), (*_, (wrong, _)) = draw_integers(CASES["padded-bands"], np.float32)
    assert set(index.ravel()) == {0, 1, 2, 3, 255} and ((y == 0) == (index == 255)).all() and np.isfinite(y).all()
    assert np.isnan(wrong).any() and np.isinf(wrong).any() and np.isfinite(wrong).any()


@both_types
def test_every_number_of_filters_that_may_be_spread(level, dtype):
    """From two filters on, the wide images are cut into bands of 8 rows, the last of 3."""
    small, wide = (2, 2, 13, 14), (1, 4, 19, 240)
    for filters in range(1, 9):
        for x, down, padding in (
            (small, 3, ONES),
            (small, 5, ((4, 1), (0, 3))),
            (small, 7, ((0, 0), (0, 0))),
            (wide, 3, ONES),
        ):
            case = Case(x, (filters, x[1], down, 3), padding=padding)
            arrays = draw(case, dtype)
            check(fused("spread", case, *arrays), separate("spread", case, *arrays))


@both_types
@pytest.mark.parametrize("name", KERNELS)
def test_results_of_few_rows_and_columns(level, name, dtype, runs):
    """One row or one column has no square: two steps return empty arrays, and so does the fused kernel."""
    for rows in range(1, 6):
        for columns in (1, 2, 3, 4, 5, 9):
            case = Case(
                (2, 2, rows, columns), (1 if name == "spread" else 9, 2, 3, 3), padding=ONES, few=name == "spread"
            )
            expected = two_steps(case, *draw(case, dtype))
            runs.clear()
            check(CPU.conv_max_pool(*draw(case, dtype), *case.how, SQUARES, False), expected)
            assert expected[0].shape[2:] == (rows // 2, columns // 2)
            assert runs == [name]


@both_types
def test_no_images_no_channels_and_no_positive_numbers(level, dtype, runs):
    for case in (CASES["one-filter"], CASES["in-place"], CASES["depthwise"]):
        x, w, b = draw(case, dtype)
        nothing = case._replace(x=(0, *case.x[1:]))
        y, index = CPU.conv_max_pool(x[:0], w, b, *case.how, SQUARES, False)
        assert y.shape == index.shape == (0, case.w[0], *(n // 2 for n in case.size)) and y.dtype == dtype
        check((y, index), two_steps(nothing, x[:0], w, b))
        y, index = CPU.conv_max_pool(x, w, np.full_like(b, -1e6), *case.how, SQUARES, False)
        assert not bits(y).any() and (index == 255).all()
        if case.groups == 1:
            x, w, b = x[:, :0], w[:, :0], np.abs(b)
            y, index = CPU.conv_max_pool(x, w, b, *case.how, SQUARES, False)
            assert (y == b[:, None, None]).all() and (index == 0).all()
    assert "direct" in runs and "spread" in runs


@both_types
@pytest.mark.parametrize("name", ["lenet", "spread-bands", "in-place", "padded-bands", "long-rows", "depthwise"])
def test_the_number_of_threads_does_not_change_the_bits(name, dtype, every_kernel_threaded):
    """Of so many images that all threads take part."""
    case = CASES[name]
    case = case._replace(x=(200 if name == "lenet" else 20, *case.x[1:]))
    arrays = draw(case, dtype)
    expected = two_steps(case, *arrays)
    alone = {kernel: separate(kernel, case, *arrays) for kernel in KERNELS if case.few or kernel == "direct"}
    for threads in (1, 2, 3, 4, 8):
        nnx.set_num_threads(threads)
        check(CPU.conv_max_pool(*arrays, *case.how, SQUARES, False), expected)
        for kernel, right in alone.items():
            check(fused(kernel, case, *arrays, threads), right)


@pytest.mark.parametrize("name", KERNELS)
def test_nothing_is_written_around_the_result(level, name):
    """Whole vectors are stored where fewer numbers remain."""
    for filters, columns in ((3, 5), (1, 7), (8, 2), (5, 37)):
        case = Case((2, 2, 7, columns), (filters, 2, 3, 3), padding=ONES)
        x, w, b = draw(case, np.float32)
        shape = (2, 3, columns // 2, filters)
        numbers, places = np.full(np.prod(shape) + 128, np.nan, np.float32), np.full(np.prod(shape) + 128, 77, np.uint8)
        y, index = (a[64:-64].reshape(shape).transpose(0, 3, 1, 2) for a in (numbers, places))
        how = ((1, 1),) if name == "spread" else ((1, 1), (1, 1), (1, 1), 1)
        KERNELS[name].forward_pooled(x, w, b, y, index, case.size, *how, 2)
        check((y, index), separate(name, case, x, w, b))
        for a, kept in ((numbers, np.isnan(numbers)), (places, places == 77)):
            assert kept[:64].all() and kept[-64:].all() and not kept[64:-64].any(), a.dtype


# -- what is fused ----------------------------------------------------------------------------------

PLAIN = CASES["whole-vectors"]  # its result has 9 rows and 11 columns
EVEN = PLAIN._replace(x=(2, 3, 8, 10))
WINOGRAD = Case((2, 16, 9, 11), (17, 16, 3, 3), padding=ONES)
TWO_STEPS = {
    "windows-3x3": (PLAIN, ((3, 3), (2, 2), (0, 0), (1, 1)), False),
    "windows-2x3": (PLAIN, ((2, 3), (2, 3), (0, 0), (1, 1)), False),
    "overlapping": (PLAIN, ((2, 2), (1, 1), (0, 0), (1, 1)), False),
    "apart": (PLAIN, ((2, 2), (3, 2), (0, 0), (1, 1)), False),
    "padded": (PLAIN, ((2, 2), (2, 2), (0, 1), (1, 1)), False),
    "dilated": (PLAIN, ((2, 2), (2, 2), (0, 0), (2, 1)), False),
    "ceil-rows": (EVEN._replace(x=(2, 3, 9, 10)), SQUARES, True),
    "ceil-columns": (EVEN._replace(x=(2, 3, 8, 11)), SQUARES, True),
    "ceil-spread": (CASES["one-filter"], SQUARES, True),
    "product": (Case((2, 256, 4, 5), (260, 256, 1, 1)), SQUARES, False),
    "columns": (Case((1, 300, 9, 9), (80, 300, 3, 3), (2, 2), ONES), SQUARES, False),
    "sequences": (Case((2, 3, 12), (4, 3, 3), (1,), ((1, 1),), (1,)), ((2,), (2,), (0,), (1,)), False),
    "volumes": (
        Case((2, 3, 4, 6, 7), (4, 3, 3, 3, 3), (1,) * 3, ((1, 1),) * 3, (1,) * 3),
        ((2,) * 3, (2,) * 3, (0,) * 3, (1,) * 3),
        False,
    ),
}


@both_types
@pytest.mark.parametrize("name", TWO_STEPS)
def test_everything_else_takes_two_steps(name, dtype, runs):
    case, windows, ceil_mode = TWO_STEPS[name]
    x, w, b = draw(case, dtype)
    expected = two_steps(case, x, w, b, windows, ceil_mode)
    runs.clear()
    check(CPU.conv_max_pool(x, w, b, *case.how, windows, ceil_mode), expected)
    assert runs == ["max_pool"]


@both_types
def test_ceil_mode_changes_nothing_where_all_windows_are_whole(dtype, runs):
    for case in (EVEN, CASES["lenet"]):
        arrays = draw(case, dtype)
        expected = two_steps(case, *arrays)
        check(two_steps(case, *arrays, ceil_mode=True), expected)
        runs.clear()
        check(CPU.conv_max_pool(*arrays, *case.how, SQUARES, True), expected)
        assert runs == [case.kernel(dtype)]


def test_winograd_takes_two_steps_unless_precision_is_high(runs):
    for dtype in (np.float32, np.float64):
        arrays = draw(WINOGRAD, dtype)
        for precision in ("default", "high"):
            with nnx.set_conv_precision(precision):
                expected = two_steps(WINOGRAD, *arrays)
                runs.clear()
                check(CPU.conv_max_pool(*arrays, *WINOGRAD.how, SQUARES, False), expected)
            assert runs == ["max_pool" if dtype == np.float32 and precision == "default" else "direct"]


def test_arrays_that_no_kernel_takes(runs):
    """Half precision, the other byte order, memory that is not aligned, a bias of another type."""
    x, w, b = draw(EVEN, np.float32)
    shifted = np.zeros(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    shifted[...] = x
    for arrays in ((x.astype(np.float16), w, b), (x.astype(">f4"), w, b), (shifted, w, b), (x, w, b.astype(float))):
        expected = two_steps(EVEN, *arrays)
        runs.clear()
        check(CPU.conv_max_pool(*arrays, *EVEN.how, SQUARES, False), expected)
        assert "direct" not in runs and "spread" not in runs


# -- arguments --------------------------------------------------------------------------------------

F = np.float32
SHAPE = (2, 6, 4, 4)


def frozen(a):
    a.flags.writeable = False
    return a


def numbers(shape=SHAPE):
    return last(np.zeros(shape, F))


def places(shape=SHAPE, dtype=np.uint8):
    return last(np.zeros(shape, dtype))


HALF = r"expected y with half of \({}\) rows and columns, got shape \(2, 6, 4, 4\)"
ERRORS = {
    "two-dimensions": ({"y": np.ones((2, 6), F)}, ValueError, "expected y with 3 to 5 dimensions, got shape"),
    "order": ({"y": np.ones(SHAPE, F)}, ValueError, "expected y to be channels-last in memory, got shape"),
    "size": ({"size": (8,)}, ValueError, r"expected size to be rows and columns, got \(8,\)"),
    "read-only": ({"y": frozen(numbers())}, ValueError, "expected y to be writeable, got a read-only array"),
    "sequences": ({"y": numbers((2, 6, 4))}, ValueError, r"expected y with 4 dimensions, got shape \(2, 6, 4\)"),
    "no-index": ({"index": None}, TypeError, "expected index to be an array, got None"),
    "index-sequences": ({"index": places((2, 6, 4))}, ValueError, r"expected index with 4 dimensions, got shape"),
    "rows-above": ({"size": (10, 9)}, ValueError, HALF.format("10, 9")),
    "rows-below": ({"size": (7, 9)}, ValueError, HALF.format("7, 9")),
    "columns-above": ({"size": (8, 10)}, ValueError, HALF.format("8, 10")),
    "columns-below": ({"size": (8, 7)}, ValueError, HALF.format("8, 7")),
    "index-shape": (
        {"index": places((2, 6, 4, 5))},
        ValueError,
        r"expected index of y's shape \(2, 6, 4, 4\), got \(2, 6, 4, 5\)",
    ),
    "index-type": ({"index": places(dtype=np.int8)}, TypeError, "expected index to be uint8, native and aligned, got"),
    "index-order": ({"index": np.zeros(SHAPE, np.uint8)}, ValueError, "expected index to be C-contiguous, got shape"),
    "index-read-only": ({"index": frozen(places())}, ValueError, "expected index to be writeable, got a read-only"),
}


def call(name, **change):
    arguments = {
        "x": np.ones((2, 4, 8, 9), F),
        "w": np.ones((6, 4, 3, 3), F),
        "bias": None,
        "y": numbers(),
        "index": places(),
        "size": (8, 9),
    } | change
    how = ((1, 1),) if name == "spread" else ((1, 1), (1, 1), (1, 1), 1)
    KERNELS[name].forward_pooled(*arguments.values(), *how, 1)
    return arguments["y"], arguments["index"]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ERRORS)
def test_errors(kernel, name):
    change, error, message = ERRORS[name]
    with pytest.raises(error, match=f"{kernel}.forward_pooled: {message}"):
        call(kernel, **change)


def test_direct_refuses_volumes():
    x, w = np.ones((2, 3, 2, 8, 9)), np.ones((6, 3, 2, 3, 3))
    y, index = last(np.zeros(SHAPE)), places()
    with pytest.raises(ValueError, match=r"direct.forward_pooled: expected strides of 2 dimensions, got \(1, 1, 1\)"):
        KERNELS["direct"].forward_pooled(x, w, None, y, index, (8, 9), (1, 1, 1), (0, 1, 1), (1, 1, 1), 1, 1)
    with pytest.raises(ValueError, match="expected images of 1 or 2 dimensions like stride, got 3"):
        KERNELS["direct"].forward_pooled(x, w, None, y, index, (8, 9), (1, 1), (1, 1), (1, 1), 1, 1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_arguments_that_errors_change_are_good(kernel):
    y, index = call(kernel)
    assert (y[:, :, 1:3, 1:] == 36).all() and (y > 0).all()
    assert (index[:, :, 1:3, 1:] == 0).all() and (index[:, :, 0, 0] == 3).all()


# -- layers -----------------------------------------------------------------------------------------

MODELS = {
    "one-filter": (lambda: nn.Conv2d(3, 1, 5, padding=2), (2, 3, 9, 8), ["spread"]),
    "direct": (lambda: nn.Conv2d(3, 12, 3, stride=2, bias=False), (2, 3, 17, 15), ["direct"]),
    "winograd": (lambda: nn.Conv2d(16, 17, 3, padding=1), (2, 16, 12, 11), ["max_pool"]),
}


@both_types
@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_layers_agree_with_functions_in_training_and_evaluation(name, batch, dtype, runs):
    make, shape, expected = MODELS[name]
    conv = make().to(dtype) if dtype == np.float32 else make().double()
    rng = np.random.default_rng(0)
    array = rng.standard_normal(shape if batch else shape[1:]).astype(dtype)
    parameters = list(conv.parameters())
    x = nnx.tensor(array, requires_grad=True)
    right = max_pool2d(relu(conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding)), 2)
    gy = nnx.tensor(rng.standard_normal(right.shape).astype(dtype))
    (right * gy).sum().backward()
    grads = [x.grad, *(p.grad for p in parameters)]
    conv.zero_grad()
    model, x = nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(2)), nnx.tensor(array, requires_grad=True)
    runs.clear()
    y = model(x)
    assert runs == (["direct"] if name == "winograd" and dtype == np.float64 else expected)
    np.testing.assert_array_equal(y.data, right.data)
    (y * gy).sum().backward()
    scale = 2e-5 if dtype == np.float32 else 1e-12
    for a, b in zip([x.grad, *(p.grad for p in parameters)], grads, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype == dtype and b.any()
        np.testing.assert_allclose(a, b, rtol=0, atol=scale * np.abs(b).max())
    with nnx.no_grad():
        np.testing.assert_array_equal(model.eval()(array).data, right.data)


def test_errors_name_the_layer_that_does_not_fit():
    def model(window):
        return nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.MaxPool2d(window))

    for shape in ((2, 3, 6, 7), (3, 6, 7)):
        x = np.ones(shape, np.float32)
        with pytest.raises(ValueError, match=r"^MaxPool2d: expected windows .* \(5, 5\) for spatial size \(4, 5\)"):
            model(5)(x)
        with pytest.raises(ValueError, match=r"^MaxPool2d: expected windows .* \(2, 2\) for spatial size \(1, 5\)"):
            model(2)(x[..., :3, :])
        with pytest.raises(ValueError, match="^Conv2d: expected input with 3 channels"):
            model(2)(x[..., :2, :, :])
        with pytest.raises(ValueError, match="^Conv2d: expected a kernel that fits"):
            model(2)(x[..., :2, :])
