"""Pooling: known results, routing of gradients, NaN and infinity, types, and every error message."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import nnx
from nnx import functional as F
from nnx.testing import assert_close, base_backend

# the course's picture
PICTURE = np.array([[[[1.0, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]]]])

both_backends = pytest.mark.parametrize("base", [False, True], ids=["cpu", "base"])


def with_gradient(function, x, gy):
    """The gradient of x for the output's gradient gy."""
    t = nnx.Tensor(x, requires_grad=True)
    function(t).backward(gy)
    return t.grad


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        (F.max_pool2d, [[6, 8], [3, 4]]),
        (F.avg_pool2d, [[3.25, 5.25], [2, 2]]),
        (F.sum_pool2d, [[13, 21], [8, 8]]),
    ],
)
def test_picture_of_the_course(pool, expected):
    assert pool(PICTURE, 2).tolist() == [[expected]]
    assert pool(PICTURE, 2, stride=2).tolist() == [[expected]]
    assert pool(PICTURE[0], 2).tolist() == [expected]


@pytest.mark.parametrize(("size", "kernel", "stride", "out"), [(55, 3, 2, 27), (112, 2, 2, 56), (7, 7, None, 1)])
def test_output_sizes_of_known_networks(size, kernel, stride, out):
    assert F.max_pool2d(np.zeros((1, 2, size, size)), kernel, stride).shape == (1, 2, out, out)


# -- routing ---------------------------------------------------------------------------------------


def test_gradient_goes_to_the_maximum():
    g = with_gradient(lambda x: F.max_pool2d(x, 2), PICTURE, np.array([[[[1.0, 2], [3, 4]]]]))
    assert g.tolist() == [[[[0, 0, 0, 0], [0, 1, 0, 2], [3, 0, 0, 0], [0, 0, 0, 4]]]]


@both_backends
def test_first_of_equal_maxima_gets_the_gradient(base):
    x = np.array([[[2.0, 2, 2, 1, 2, 2]]])
    with base_backend() if base else nnx.enable_grad():
        g = with_gradient(lambda x: F.max_pool1d(x, 3), x, np.ones((1, 1, 2)))
    assert g.tolist() == [[[1, 0, 0, 0, 1, 0]]]


@both_backends
def test_maximum_of_overlapping_windows_gets_their_sum(base):
    x = np.array([[[0.0, 5, 1, 3, 2]]])
    with base_backend() if base else nnx.enable_grad():
        g = with_gradient(lambda x: F.max_pool1d(x, 3, 1), x, np.array([[[1.0, 2, 4]]]))
    assert g.tolist() == [[[0, 3, 0, 4, 0]]]


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2), st.booleans(), st.integers(0, 100))
def test_sum_of_the_gradient_is_kept(kernel, stride, padding, ceil_mode, seed):
    """Every output's gradient arrives somewhere, whatever overlaps."""
    assume(padding <= kernel // 2)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 3, 7, 6))
    for pool in (F.max_pool2d, F.sum_pool2d):
        y = pool(x, kernel, stride, padding, ceil_mode=ceil_mode)
        gy = rng.standard_normal(y.shape)
        g = with_gradient(lambda t, p=pool: p(t, kernel, stride, padding, ceil_mode=ceil_mode), x, gy)
        if pool is F.max_pool2d:
            assert_close(g.sum(), gy.sum(), 1e-10, 1e-10)
        else:  # a padded element takes its share along
            ones = F.sum_pool2d(np.ones_like(x), kernel, stride, padding, ceil_mode=ceil_mode).data
            assert_close(g.sum(), (gy * ones).sum(), 1e-10, 1e-10)


# -- NaN and infinity ------------------------------------------------------------------------------


@both_backends
def test_nan_is_the_maximum_and_gets_the_gradient(base):
    x = np.array([[[1.0, np.nan, 3, np.inf, 2, 5]]])
    with base_backend() if base else nnx.enable_grad():
        y, index = F.max_pool1d(x, 3, return_indices=True)
        g = with_gradient(lambda x: F.max_pool1d(x, 3), x, np.array([[[7.0, 8]]]))
    np.testing.assert_array_equal(y, [[[np.nan, np.inf]]])
    assert index.tolist() == [[[1, 3]]]
    assert g.tolist() == [[[0, 7, 0, 8, 0, 0]]]


@both_backends
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_windows_of_nothing_else_have_an_index_inside_the_input(value, base):
    """Such an index once was -1, and the backward pass wrote outside of the array."""
    x = np.full((2, 3, 4, 5), value)
    with base_backend() if base else nnx.enable_grad():
        y, index = F.max_pool2d(x, 3, 1, 1, return_indices=True)
        g = with_gradient(lambda x: F.max_pool2d(x, 3, 1, 1), x, np.ones(y.shape))
    assert np.array_equal(y.data, x, equal_nan=True)
    assert index.data.min() >= 0 and index.data.max() < 20
    assert g.sum() == x.size
    if value == -np.inf:  # the first element inside the input
        assert index.data[0, 0, :2, :3].tolist() == [[0, 0, 1], [0, 0, 1]]


def test_padding_is_never_the_maximum():
    x = np.full((1, 1, 3, 3), -1e30)
    y, index = F.max_pool2d(x, 2, 1, 1, return_indices=True)
    assert (y.data == -1e30).all()
    assert index.data.min() >= 0


# -- indices ---------------------------------------------------------------------------------------


@given(st.data())
def test_indices_point_to_the_maxima(data):
    n = data.draw(st.sampled_from((1, 2, 3)))

    def sizes(low, high):
        return tuple(data.draw(st.integers(low, high)) for _ in range(n))

    kernel, stride, dilation, size = sizes(1, 3), sizes(1, 3), sizes(1, 2), sizes(4, 6)
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    ceil_mode = data.draw(st.booleans())
    assume(all(s + 2 * p > d * (k - 1) for s, p, d, k in zip(size, padding, dilation, kernel, strict=True)))
    x = np.random.default_rng(0).standard_normal((2, 3, *size))
    pool = getattr(F, f"max_pool{n}d")
    y, index = pool(x, kernel, stride, padding, dilation, ceil_mode, return_indices=True)
    assert index.dtype == np.int64 and not index.requires_grad
    flat = np.take_along_axis(x.reshape(2, 3, -1), index.data.reshape(2, 3, -1), 2)
    np.testing.assert_array_equal(flat.reshape(y.shape), y)


# -- the mean by its formula -----------------------------------------------------------------------


@given(st.data())
def test_mean_equals_the_formula(data):
    size, kernel, stride = (data.draw(st.tuples(st.integers(1, hi), st.integers(1, hi))) for hi in (7, 4, 4))
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    counted = data.draw(st.booleans())
    assume(all(n + 2 * p >= k for n, p, k in zip(size, padding, kernel, strict=True)))
    x = np.random.default_rng(0).standard_normal((2, 3, *size))
    y = F.avg_pool2d(x, kernel, stride, padding, count_include_pad=counted)
    frame = ((0, 0), (0, 0), *((p, p) for p in padding))
    padded, inside = np.pad(x, frame), np.pad(np.ones_like(x), frame)
    for i, j in itertools.product(*map(range, y.shape[2:])):
        rows = slice(i * stride[0], i * stride[0] + kernel[0])
        columns = slice(j * stride[1], j * stride[1] + kernel[1])
        total = padded[:, :, rows, columns].sum((2, 3))
        count = kernel[0] * kernel[1] if counted else inside[:, :, rows, columns].sum((2, 3))
        assert_close(y.data[:, :, i, j], total / count, 1e-12, 1e-12)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_adaptive_mean_equals_the_formula(height, width, out):
    x = np.random.default_rng(0).standard_normal((2, 3, height, width))
    y = F.adaptive_avg_pool2d(x, (out, None))
    assert y.shape == (2, 3, out, width)
    for i in range(out):
        start, end = i * height // out, -(-(i + 1) * height // out)
        assert_close(y.data[:, :, i], x[:, :, start:end].mean(2), 1e-12, 1e-12)


def test_global_mean(rng):
    x = rng.standard_normal((4, 5, 7, 7))
    assert_close(F.adaptive_avg_pool2d(x, 1).data[:, :, 0, 0], x.mean((2, 3)), 1e-12)


def test_adaptive_output_of_size_0():
    assert F.adaptive_avg_pool2d(np.zeros((2, 3, 4, 5)), (0, 2)).shape == (2, 3, 0, 2)


def test_sum_is_mean_times_size(rng):
    x = rng.standard_normal((2, 3, 6, 7))
    assert_close(F.sum_pool2d(x, (2, 3), 1, 1), F.avg_pool2d(x, (2, 3), 1, 1).data * 6, 1e-12)


# -- memory ----------------------------------------------------------------------------------------


def test_output_is_channels_last(rng):
    """What comes behind a convolution needs no conversion."""
    x = nnx.Tensor(rng.standard_normal((2, 5, 6, 7)), requires_grad=True)
    for y in (F.max_pool2d(x, 2), F.avg_pool2d(x, 2), F.adaptive_avg_pool2d(x, 3)):
        assert y.data.transpose(0, 2, 3, 1).flags.c_contiguous


def test_window_of_more_than_255_elements(rng):
    """Its positions do not fit into a byte."""
    x = rng.standard_normal((2, 5, 20, 20))
    y, index = F.max_pool2d(x, 17, 1, return_indices=True)
    assert y.shape == (2, 5, 4, 4)
    for i, j in itertools.product(range(4), range(4)):
        np.testing.assert_array_equal(y.data[:, :, i, j], x[:, :, i : i + 17, j : j + 17].max((2, 3)))
    flat = np.take_along_axis(x.reshape(2, 5, -1), index.data.reshape(2, 5, -1), 2)
    np.testing.assert_array_equal(flat.reshape(y.shape), y)


def test_plain_arrays_of_integers_become_float32():
    y = F.max_pool2d(np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4), 2)
    assert y.dtype == np.float32
    assert y.tolist() == [[[[5, 7], [13, 15]]]]


# -- errors ----------------------------------------------------------------------------------------

X = np.zeros((2, 3, 6, 7))

ERRORS = [
    (
        lambda: F.max_pool2d(np.zeros((4, 4)), 2),
        r"max_pool2d: expected input with 4 dimensions \(N, C, H, W\), or 3 \(C, H, W\) for one sample, "
        r"got shape \(4, 4\)",
    ),
    (lambda: F.avg_pool1d(X, 2), r"avg_pool1d: expected input with 3 dimensions \(N, C, L\)"),
    (lambda: F.sum_pool3d(X[0], 2), r"sum_pool3d: expected input with 5 dimensions \(N, C, D, H, W\)"),
    (
        lambda: F.max_pool2d(np.zeros((2, 3, 0, 7)), 2),
        r"max_pool2d: expected input with at least one element along each of \(H, W\), got shape",
    ),
    (lambda: F.max_pool2d(X, 0), "max_pool2d: expected kernel_size to be an integer >= 1, got 0"),
    (lambda: F.max_pool2d(X, 2, 0), "max_pool2d: expected stride to be an integer >= 1, got 0"),
    (lambda: F.max_pool2d(X, 2, padding=-1), "expected padding to be an integer >= 0, got -1"),
    (lambda: F.max_pool2d(X, 2, dilation=0), "expected dilation to be an integer >= 1, got 0"),
    (
        lambda: F.max_pool2d(X, (2, 2, 2)),
        r"max_pool2d: expected kernel_size to be one integer or 2 integers, got \(2, 2, 2\)",
    ),
    (
        lambda: F.max_pool2d(X, 3, padding=2),
        r"max_pool2d: expected padding of at most half of kernel_size, got padding \(2, 2\) with "
        r"kernel_size \(3, 3\)",
    ),
    (
        lambda: F.max_pool2d(X, 8),
        r"max_pool2d: expected windows that fit into the padded input, got kernel_size \(8, 8\) for "
        r"spatial size \(6, 7\) with padding \(0, 0\)",
    ),
    (lambda: F.max_pool2d(X, 3, dilation=4), r"kernel_size \(3, 3\) and dilation \(4, 4\) for spatial"),
    (
        lambda: F.max_pool1d(np.zeros((1, 1, 2)), 2, 1, 1, 3),
        r"max_pool1d: expected every window to hold at least one element of the input, got dilation "
        r"\(3,\) for spatial size \(2,\)",
    ),
    (lambda: F.max_pool2d(X, 2**31), "max_pool2d: expected kernel_size to be at most 2147483647"),
    (
        lambda: F.max_pool2d(X, 2**16, padding=2**15),
        r"max_pool2d: expected windows of at most 2147483647 elements, got kernel_size \(65536, 65536\)",
    ),
    (lambda: F.avg_pool2d(X, 7), r"avg_pool2d: expected windows that fit into the padded input"),
    (
        lambda: F.avg_pool2d(X, 2, divisor_override=0),
        "avg_pool2d: expected divisor_override to be None or not 0, got 0",
    ),
    (
        lambda: F.adaptive_avg_pool2d(X, (1, 2, 3)),
        r"adaptive_avg_pool2d: expected output_size to be one integer or 2 integers or None, got "
        r"\(1, 2, 3\)",
    ),
    (
        lambda: F.adaptive_avg_pool2d(X, -1),
        "adaptive_avg_pool2d: expected output_size to be an integer >= 0, got -1",
    ),
    (
        lambda: F.adaptive_avg_pool2d(X, 2**31 - 1),
        r"adaptive_avg_pool2d: expected a result of less than 2\^63 bytes",
    ),
]


@pytest.mark.parametrize(("call", "message"), ERRORS, ids=[m[:60] for _, m in ERRORS])
def test_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


TYPE_ERRORS = [
    (lambda: F.max_pool2d(X, 2.0), r"max_pool2d: expected kernel_size to be an integer >= 1, got 2\.0"),
    (lambda: F.avg_pool2d(X, None), "avg_pool2d: expected kernel_size to be an integer >= 1, got None"),
    (
        lambda: F.max_pool2d(nnx.Tensor(np.zeros((1, 1, 4, 4), int)), 2),
        "max_pool2d: expected input of dtype float32 or float64, got a Tensor of dtype int64. Convert",
    ),
    (
        lambda: F.avg_pool2d(X, 2, divisor_override=1.5),
        "avg_pool2d: expected divisor_override to be an integer, got 1.5",
    ),
]


@pytest.mark.parametrize(("call", "message"), TYPE_ERRORS, ids=[m[:60] for _, m in TYPE_ERRORS])
def test_type_error(call, message):
    with pytest.raises(TypeError, match=message):
        call()
