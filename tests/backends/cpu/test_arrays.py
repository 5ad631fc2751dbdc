"""The helpers that decide whether a kernel takes an array, and bring it into the right layout."""

from __future__ import annotations

import numpy as np
import pytest

from nnx.backends.cpu._arrays import (
    channels_last,
    dense,
    empty_channels_last,
    has_kernel,
    is_channels_last,
    like,
    nchw,
    nhwc,
)

SHAPES = [(2, 3), (2, 3, 4), (2, 3, 4, 5), (2, 3, 4, 5, 6)]


def numbers(shape):
    return np.arange(np.prod(shape), dtype=np.float64).reshape(shape)


def test_has_kernel():
    f32, f64 = np.zeros(3, np.float32), np.zeros(3)
    assert has_kernel(f32) and has_kernel(f64, f64)
    assert has_kernel(f64[::-2], np.zeros((2, 0)))
    assert not has_kernel(f32, f64)
    assert not has_kernel(np.zeros(3, int))
    assert not has_kernel(np.zeros(3, np.float16))
    assert not has_kernel(np.zeros(3, ">f8"))
    assert not has_kernel(f64, np.zeros(25, np.uint8)[1:].view(np.float64))
    assert not has_kernel() and not has_kernel(f32, None) and not has_kernel(np.float32(1))


@pytest.mark.parametrize("shape", [*SHAPES, (4, 1, 5, 6), (4, 3, 1, 1), (1, 3, 1, 6), (0, 3, 4, 5), (2, 3, 4, 0)])
def test_channels_last_is_contiguous_the_other_way_round(shape):
    for a in (numbers(shape), empty_channels_last(shape, np.int8), numbers(shape)[::-1], numbers(shape)[..., ::2]):
        view = nhwc(a)
        assert view.shape == (a.shape[0], *a.shape[2:], a.shape[1]) and np.shares_memory(view, a) == (a.size > 0)
        np.testing.assert_array_equal(view, np.moveaxis(a, 1, -1))
        np.testing.assert_array_equal(nchw(view), a)
        assert is_channels_last(a) == view.flags.c_contiguous


@pytest.mark.parametrize("shape", [(), (3,), (1,) * 6])
def test_other_numbers_of_dimensions_are_no_images(shape):
    message = f"expected an array of 2 to 5 dimensions, got {len(shape)}"
    for function in (nhwc, nchw, is_channels_last):
        with pytest.raises(ValueError, match=f"^{function.__name__}: {message}"):
            function(np.zeros(shape))
    with pytest.raises(ValueError, match=f"^empty_channels_last: {message}"):
        empty_channels_last(shape, np.float32)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_dense_keeps_any_order_of_the_axes(order):
    a = numbers((2, 3, 4, 5)).transpose(order)
    assert dense(a) is a


@pytest.mark.parametrize(
    "a",
    [
        numbers((4, 6))[:, ::2],
        numbers((4, 6))[::2],
        numbers((4, 6))[::-1],
        np.broadcast_to(numbers((1, 6)), (4, 6)),
        numbers((4, 6, 2))[:, :, 0],
    ],
)
def test_dense_copies_what_has_holes_or_overlaps(a):
    b = dense(a)
    assert b.flags.c_contiguous
    np.testing.assert_array_equal(b, a)


@pytest.mark.parametrize("shape", SHAPES)
def test_channels_last(shape):
    a = numbers(shape)
    b = channels_last(a)
    assert b.shape == shape and nhwc(b).flags.c_contiguous
    np.testing.assert_array_equal(b, a)
    assert channels_last(b) is b
    e = empty_channels_last(shape, np.float32)
    assert e.shape == shape and e.dtype == np.float32 and nhwc(e).flags.c_contiguous
    assert nhwc(e).shape == (shape[0], *shape[2:], shape[1])


@pytest.mark.parametrize("shape", [(4, 1, 5, 6), (4, 3, 1, 1), (1, 1, 1, 1), (4, 1, 7), (0, 3, 4, 5)])
def test_ambiguous_layouts_are_not_copied(shape):
    a = numbers(shape)
    assert channels_last(a) is a
    assert nhwc(a).flags.c_contiguous


def test_like_takes_the_layout_of_the_reference():
    a = numbers((2, 3, 4, 5))
    ref = empty_channels_last((2, 3, 4, 5), np.float64)
    b = like(a, ref)
    assert b.strides == ref.strides
    np.testing.assert_array_equal(b, a)
    assert like(b, ref) is b
    assert like(a, np.empty_like(a)) is a
    assert like(a.astype(np.float32), ref).dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.float16])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (5, 7, 19, 17), (3, 40, 150), (2, 9, 5, 8, 17), (70, 90)])
def test_like_between_every_two_layouts(shape, dtype):
    """By threads where there are many numbers of a kernel's type, by NumPy otherwise: the same numbers, new memory."""
    values = numbers(shape).astype(dtype)
    strided = np.zeros((*shape[:-1], 2 * shape[-1]), dtype)[..., ::2]
    strided[...] = values
    last = np.ascontiguousarray(np.moveaxis(values, 1, -1))
    layouts = [values, np.moveaxis(last, -1, 1), np.asfortranarray(values), strided]
    for ref in layouts[:3]:
        for a in layouts:
            b = like(a, ref)
            assert b.strides == ref.strides and b.dtype == dtype
            assert b is a if a.strides == ref.strides else not np.shares_memory(a, b)
            np.testing.assert_array_equal(b, values)


def test_like_ignores_the_strides_of_axes_of_length_one():
    a = numbers((4, 1, 5))
    ref = np.empty((4, 5, 1)).transpose(0, 2, 1)
    assert like(a, ref) is a
