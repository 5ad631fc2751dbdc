"""Convolution: known results, the adjoint, a naive loop, types, and every error message."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnx
from nnx import functional as F
from nnx.testing import assert_close

# -- the course's example: a 5x5 image of 3 channels with a frame of zeros, two filters, stride 2 ---

DEMO_X = [
    [[1, 0, 2, 1, 1], [2, 0, 2, 2, 0], [2, 0, 0, 2, 0], [1, 1, 0, 0, 1], [1, 2, 0, 0, 0]],
    [[0, 0, 0, 0, 0], [1, 2, 2, 2, 1], [0, 2, 1, 0, 1], [0, 2, 2, 1, 2], [1, 2, 1, 2, 1]],
    [[1, 2, 2, 1, 1], [0, 0, 0, 0, 2], [2, 0, 1, 0, 1], [0, 0, 1, 1, 1], [1, 0, 2, 0, 2]],
]
DEMO_W = [
    [
        [[0, -1, -1], [1, 0, 0], [1, 1, 0]],
        [[0, 0, -1], [0, 0, 1], [0, 1, 0]],
        [[1, 1, -1], [1, 1, 1], [-1, 1, -1]],
    ],
    [
        [[-1, 0, 1], [1, 1, -1], [1, 1, -1]],
        [[0, 0, 1], [1, -1, 0], [0, -1, -1]],
        [[1, 0, 1], [0, 1, 0], [1, 1, -1]],
    ],
]
DEMO_Y = [[[7, 10, 9], [2, -1, 9], [0, 6, 4]], [[1, -1, 6], [4, 2, 1], [2, 6, 4]]]


def demo():
    return (np.array(values, np.float64) for values in (DEMO_X, DEMO_W, [1, 0]))


def test_course_demo():
    x, w, b = demo()
    assert F.conv2d(x, w, b, stride=2, padding=1).tolist() == DEMO_Y
    assert F.conv2d(x[None], w, b, stride=2, padding=1).tolist() == [DEMO_Y]


def test_course_demo_with_channels_last_memory():
    x, w, b = demo()
    x = np.ascontiguousarray(x.transpose(1, 2, 0)).transpose(2, 0, 1)
    assert F.conv2d(x, w, b, stride=2, padding=1).tolist() == DEMO_Y


def test_filter_is_not_flipped():
    """A mathematician's convolution flips the filter, and gives another result."""
    x, w, b = demo()
    y = F.conv2d(x, w[:, :, ::-1, ::-1], b, stride=2, padding=1)
    assert y[0].tolist() == [[2, 3, 1], [5, 11, 3], [6, 7, 8]]


@pytest.mark.parametrize(("stride", "size"), [(1, 5), (2, 3), (3, 2)])
def test_output_size_for_7_elements_and_a_filter_of_3(stride, size):
    y = F.conv2d(np.zeros((1, 1, 7, 7)), np.zeros((1, 1, 3, 3)), stride=stride)
    assert y.shape == (1, 1, size, size)


@pytest.mark.parametrize(
    ("x", "w", "padding", "y"),
    [
        ((1, 3, 32, 32), (10, 3, 5, 5), 2, (1, 10, 32, 32)),
        ((1, 3, 32, 32), (6, 3, 5, 5), 0, (1, 6, 28, 28)),
        ((1, 1, 7, 7), (1, 1, 3, 3), 1, (1, 1, 7, 7)),
    ],
)
def test_output_shapes_of_the_course(x, w, padding, y):
    assert F.conv2d(np.zeros(x), np.zeros(w), padding=padding).shape == y


@pytest.mark.parametrize("size", [3, 5, 7])
def test_same_padding_is_half_the_filter(size, rng):
    x, w = rng.standard_normal((1, 1, 9, 9)), rng.standard_normal((1, 1, size, size))
    y = F.conv2d(x, w, padding="same")
    assert y.shape == x.shape
    assert_close(y, F.conv2d(x, w, padding=(size - 1) // 2), 1e-12)


def test_gaussian_filter_of_the_course():
    """A box of equal numbers keeps its value; the weights sum to 1."""
    w = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    y = F.conv2d(np.full((1, 1, 5, 6), 176.1875), w[None, None])
    assert (y.data == 176.1875).all()


def test_1x1_is_a_matrix_product(rng):
    x, w = rng.standard_normal((2, 64, 3, 5)), rng.standard_normal((32, 64, 1, 1))
    assert_close(F.conv2d(x, w), np.einsum("nchw,kc->nkhw", x, w[:, :, 0, 0]), 1e-12)


# -- any geometry ----------------------------------------------------------------------------------


@st.composite
def geometries(draw, dims=(1, 2, 3)):
    """Shapes of x and w, stride, padding (a pair per dimension), dilation, groups."""
    n = draw(st.sampled_from(dims))
    groups = draw(st.integers(1, 3))

    def sizes(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(n))

    kernel, stride, dilation = sizes(1, 4), sizes(1, 3), sizes(1, 3)
    padding = tuple(zip(sizes(0, 4), sizes(0, 4), strict=True))
    least = [max(d * (k - 1) + 1 - sum(p), 1) for k, d, p in zip(kernel, dilation, padding, strict=True)]
    size = tuple(a + b for a, b in zip(least, sizes(0, 4), strict=True))
    x = (draw(st.integers(0, 2)), groups * draw(st.integers(1, 2)), *size)
    w = (groups * draw(st.integers(1, 2)), x[1] // groups, *kernel)
    return x, w, stride, padding, dilation, groups


def naive_conv(x, w, b, stride, padding, dilation, groups):
    """The formula of conv2d's docstring, one output at a time."""
    n = w.ndim - 2
    padded = np.pad(x, ((0, 0), (0, 0), *padding))
    out = [(padded.shape[2 + i] - dilation[i] * (w.shape[2 + i] - 1) - 1) // stride[i] + 1 for i in range(n)]
    y = np.empty((len(x), len(w), *out))
    share = w.shape[1]
    for k, o in itertools.product(range(len(w)), np.ndindex(*out)):
        group = k // (len(w) // groups)
        where = tuple(
            slice(o[i] * stride[i], o[i] * stride[i] + dilation[i] * (w.shape[2 + i] - 1) + 1, dilation[i])
            for i in range(n)
        )
        window = padded[:, group * share : (group + 1) * share, *where]
        y[:, k, *o] = (window * w[k]).sum(axis=tuple(range(1, x.ndim))) + b[k]
    return y


@given(geometries(), st.integers(0, 1000))
def test_equals_the_formula(geometry, seed):
    x_shape, w_shape, stride, padding, dilation, groups = geometry
    rng = np.random.default_rng(seed)
    x, w, b = (rng.standard_normal(s) for s in (x_shape, w_shape, w_shape[:1]))
    conv = getattr(F, f"conv{len(stride)}d")
    y = conv(x, w, b, stride, padding, dilation, groups)
    assert_close(y, naive_conv(x, w, b, stride, padding, dilation, groups), 1e-12, 1e-12)


@given(geometries(), st.integers(0, 1000))
def test_transposed_convolution_is_the_adjoint(geometry, seed):
    """<conv(x), y> = <x, conv_transpose(y)>."""
    x_shape, w_shape, stride, padding, dilation, groups = geometry
    rng = np.random.default_rng(seed)
    n = len(stride)
    x, w = rng.standard_normal(x_shape), rng.standard_normal(w_shape)
    forward = getattr(F, f"conv{n}d")(x, w, None, stride, padding, dilation, groups)
    y = rng.standard_normal(forward.shape)
    # what the stride left over comes back by output_padding
    rest = tuple(
        (size + sum(p) - d * (k - 1) - 1) % s
        for size, p, d, k, s in zip(x_shape[2:], padding, dilation, w_shape[2:], stride, strict=True)
    )
    back = getattr(F, f"conv_transpose{n}d")(y, w, None, stride, padding, rest, groups, dilation)
    assert back.shape == x.shape
    assert_close((forward.data * y).sum(), (x * back.data).sum(), 1e-10, 1e-10)


@given(geometries(dims=(2,)), st.integers(0, 1000))
def test_unfold_times_weights_is_convolution(geometry, seed):
    x_shape, w_shape, stride, padding, dilation, _ = geometry
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((3, x_shape[1], *w_shape[2:]))
    x = rng.standard_normal(x_shape)
    columns = F.unfold(x, w_shape[2:], dilation, padding, stride)
    y = F.conv2d(x, w, None, stride, padding, dilation)
    product = np.einsum("km,nmo->nko", w.reshape(3, -1), columns.data)
    assert_close(product.reshape(y.shape), y, 1e-12, 1e-12)


def test_fold_counts_how_often_unfold_reads():
    count = F.fold(F.unfold(np.ones((1, 2, 4, 4)), 3), 4, 3)
    row = np.array([1, 2, 2, 1])
    assert (count.data == np.outer(row, row)).all()


# -- types and arrays ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64, np.float16, bool])
def test_plain_arrays_are_cast_to_the_weight(dtype, rng):
    x = rng.integers(0, 2, (2, 3, 5, 5)).astype(dtype)
    w = nnx.Tensor(rng.standard_normal((4, 3, 3, 3)).astype(np.float32), requires_grad=True)
    y = F.conv2d(x, w, [1, 2, 3, 4])
    assert y.dtype == np.float32
    assert_close(y, F.conv2d(x.astype(np.float32), w, np.arange(1.0, 5.0)), 1e-6)


def test_gradients_have_their_input_shape_and_type(rng):
    x = nnx.Tensor(rng.standard_normal((3, 6, 5)), requires_grad=True)
    w = nnx.Tensor(rng.standard_normal((2, 3, 2, 2)), requires_grad=True)
    F.conv2d(x, w, padding=1).sum().backward()
    assert x.grad.shape == x.shape and w.grad.shape == w.shape
    assert x.grad.dtype == w.grad.dtype == np.float64


def test_shared_weight_gets_the_sum_of_its_gradients(rng):
    x = rng.standard_normal((2, 3, 6, 6))
    w = nnx.Tensor(rng.standard_normal((3, 3, 3, 3)), requires_grad=True)
    F.conv2d(F.conv2d(x, w, padding=1), w).sum().backward()
    first, second = (nnx.Tensor(w.data, requires_grad=True) for _ in range(2))
    F.conv2d(F.conv2d(x, first, padding=1), second).sum().backward()
    assert_close(w.grad, first.grad + second.grad, 1e-12)


# -- errors ----------------------------------------------------------------------------------------

X, W, B = np.zeros((8, 3, 6, 7)), np.zeros((4, 3, 3, 3)), np.zeros(4)
T = np.zeros((3, 4, 3, 3))  # weight of a transposed convolution
COLUMNS = np.zeros((2, 12, 20))

ERRORS = [
    # shapes
    (
        lambda: F.conv2d(np.zeros((8, 1, 28, 28)), W),
        r"conv2d: expected input with 3 channels \(dimension 1 of \(N, C, H, W\)\), got shape "
        r"\(8, 1, 28, 28\)",
    ),
    (
        lambda: F.conv2d(np.zeros((1, 28, 28)), W),
        r"conv2d: expected input with 3 channels \(dimension 0 of \(C, H, W\)\), got shape "
        r"\(1, 28, 28\)",
    ),
    (lambda: F.conv2d(X, W, groups=2), r"expected input with 6 channels in 2 groups"),
    (
        lambda: F.conv2d(np.zeros((8, 6, 6, 7)), np.zeros((5, 3, 3, 3)), groups=2),
        "conv2d: expected groups to divide the 5 output channels, got groups=2",
    ),
    (
        lambda: F.conv2d(np.zeros((28, 28)), W),
        r"conv2d: expected input with 4 dimensions \(N, C, H, W\), or 3 \(C, H, W\) for one sample, "
        r"got shape \(28, 28\)",
    ),
    (lambda: F.conv1d(X, np.zeros((4, 3, 3))), r"conv1d: expected input with 3 dimensions \(N, C, L\)"),
    (lambda: F.conv3d(np.zeros((2, 2, 2)), np.zeros((1, 1, 1, 1, 1))), r"\(N, C, D, H, W\)"),
    (
        lambda: F.conv2d(X, np.zeros((4, 3, 3))),
        r"conv2d: expected weight with 4 dimensions, none of them empty, got shape \(4, 3, 3\)",
    ),
    (lambda: F.conv2d(X, np.zeros((4, 3, 0, 3))), "expected weight with 4 dimensions, none of them empty"),
    (lambda: F.conv2d(nnx.Tensor(X), nnx.Tensor(W[:0])), "expected weight with 4 dimensions, none of them empty"),
    (
        lambda: F.conv2d(X, W, np.zeros(3)),
        r"conv2d: expected bias of shape \(4,\), got shape \(3,\)",
    ),
    (
        lambda: F.conv2d(np.zeros((1, 3, 2, 7)), W),
        r"conv2d: expected a kernel that fits into the padded input, got kernel \(3, 3\) with dilation "
        r"\(1, 1\) for spatial size \(2, 7\) with padding \(\(0, 0\), \(0, 0\)\)",
    ),
    (lambda: F.conv2d(X, W, dilation=3), r"with dilation \(3, 3\) for spatial size \(6, 7\)"),
    (
        lambda: F.conv2d(np.zeros((1, 3, 0, 7)), W, padding=3),
        r"conv2d: expected input with at least one element along each of \(H, W\), got shape "
        r"\(1, 3, 0, 7\)",
    ),
    # numbers
    (lambda: F.conv2d(X, W, stride=0), "conv2d: expected stride to be an integer >= 1, got 0"),
    (lambda: F.conv2d(X, W, dilation=-1), "conv2d: expected dilation to be an integer >= 1, got -1"),
    (lambda: F.conv2d(X, W, padding=-1), "conv2d: expected padding to be an integer >= 0, got -1"),
    (lambda: F.conv2d(X, W, groups=0), "conv2d: expected groups to be an integer >= 1, got 0"),
    (
        lambda: F.conv2d(X, W, stride=(1, 2, 3)),
        r"conv2d: expected stride to be one integer or 2 integers, got \(1, 2, 3\)",
    ),
    (
        lambda: F.conv2d(X, W, padding=((1, 2),)),
        r"conv2d: expected padding to be an integer, 2 integers or 2 pairs \(low, high\), got "
        r"\(\(1, 2\),\)",
    ),
    (
        lambda: F.conv2d(X, W, padding="full"),
        "conv2d: expected padding to be one of 'same', 'valid', got 'full'",
    ),
    (
        lambda: F.conv2d(X, W, stride=2, padding="same"),
        r"conv2d: expected stride 1 with padding='same', got stride \(2, 2\)",
    ),
    (
        lambda: F.conv2d(X, W, stride=2**31),
        "conv2d: expected stride to be at most 2147483647, got 2147483648",
    ),
    (
        lambda: F.conv2d(X, W, padding=2**31 - 1),
        "conv2d: expected a result of less than 2\\^63 bytes, got shape",
    ),
    # transposed convolution
    (
        lambda: F.conv_transpose2d(np.zeros((1, 2, 3, 3)), T),
        r"conv_transpose2d: expected input with 3 channels \(dimension 1 of \(N, C, H, W\)\), got shape",
    ),
    (
        lambda: F.conv_transpose2d(X, T, groups=2),
        "conv_transpose2d: expected groups to divide the 3 input channels, got groups=2",
    ),
    (
        lambda: F.conv_transpose2d(X, T, B[:2]),
        r"conv_transpose2d: expected bias of shape \(4,\), got shape \(2,\)",
    ),
    (
        lambda: F.conv_transpose2d(X, T, stride=2, output_padding=2),
        r"conv_transpose2d: expected output_padding below stride or dilation, got output_padding "
        r"\(2, 2\) with stride \(2, 2\) and dilation \(1, 1\)",
    ),
    (
        lambda: F.conv_transpose2d(np.zeros((1, 3, 1, 1)), T, padding=2),
        r"conv_transpose2d: expected padding that leaves at least one output element, got output "
        r"size \(-1, -1\)",
    ),
    (
        lambda: F.conv_transpose2d(X, T, padding="same"),
        r"conv_transpose2d: expected padding to be integers or pairs \(low, high\), got 'same'",
    ),
    (
        lambda: F.conv_transpose2d(X, T, stride=2**31 - 1),
        "conv_transpose2d: expected a result of less than 2\\^63 bytes",
    ),
    # columns
    (
        lambda: F.unfold(X, 8),
        r"unfold: expected kernel_size that fits into the padded input, got \(8, 8\) with dilation",
    ),
    (lambda: F.unfold(X[0, 0], 2), r"unfold: expected input with 4 dimensions \(N, C, H, W\)"),
    (lambda: F.unfold(X, 0), "unfold: expected kernel_size to be an integer >= 1, got 0"),
    (
        lambda: F.fold(X, 4, 2),
        r"fold: expected input with 3 dimensions \(N, C kh kw, L\), or 2 for one sample, got shape",
    ),
    (
        lambda: F.fold(COLUMNS, (5, 6), 5),
        r"fold: expected input with a multiple of 25 \(the size of the window\) rows, got shape",
    ),
    (
        lambda: F.fold(COLUMNS, (5, 7), 2),
        r"fold: expected input with 24 columns, for \(4, 6\) window positions in output_size \(5, 7\), "
        r"got shape \(2, 12, 20\)",
    ),
    (lambda: F.fold(COLUMNS, (5, 0), 2), "fold: expected output_size to be an integer >= 1, got 0"),
]


@pytest.mark.parametrize(("call", "message"), ERRORS, ids=[m[:60] for _, m in ERRORS])
def test_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


F32 = nnx.Tensor(np.zeros((1, 3, 5, 5), np.float32))
F64 = nnx.Tensor(np.zeros((4, 3, 3, 3)))
TYPE_ERRORS = [
    (
        lambda: F.conv2d(F32, F64),
        "conv2d: expected input of dtype float64, got a Tensor of dtype float32. Convert one with "
        r"\.float\(\) or \.double\(\)",
    ),
    (lambda: F.conv2d(X, F64, nnx.Tensor(B.astype(np.float32))), "expected bias of dtype float64, got"),
    (
        lambda: F.conv2d(X, nnx.Tensor(np.zeros((4, 3, 3, 3), np.int64))),
        "conv2d: expected weight of dtype float32 or float64, got a Tensor of dtype int64",
    ),
    (lambda: F.conv2d(X, W, stride=1.5), r"conv2d: expected stride to be an integer >= 1, got 1\.5"),
    (lambda: F.conv2d(X, W, groups=True), "conv2d: expected groups to be an integer >= 1, got True"),
    (lambda: F.conv2d("image", W), "expected an array of numbers, got dtype"),
    (lambda: F.unfold(nnx.Tensor(np.zeros((1, 2, 3, 3), int)), 2), "unfold: expected input of dtype float32"),
]


@pytest.mark.parametrize(("call", "message"), TYPE_ERRORS, ids=[m[:60] for _, m in TYPE_ERRORS])
def test_type_error(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize("name", ["stride", "padding", "dilation"])
@pytest.mark.parametrize("bad", [1.0, True])
def test_a_question_that_was_answered_is_checked_anew_in_other_types(name, bad):
    """1.0 and True compare equal to 1, which has just been asked."""
    x, w = np.ones((1, 2, 6, 6), np.float32), np.ones((3, 2, 3, 3), np.float32)
    F.conv2d(x, w, **{name: (1, 1)})
    with pytest.raises(TypeError, match=f"conv2d: expected {name} "):
        F.conv2d(x, w, **{name: (bad, bad)})
    if name != "padding":
        F.max_pool2d(x, 2, **{name: (1, 1)})
        with pytest.raises(TypeError, match=f"max_pool2d: expected {name} "):
            F.max_pool2d(x, 2, **{name: (bad, bad)})
