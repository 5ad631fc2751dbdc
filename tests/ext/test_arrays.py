"""The questions of ext/arrays.pyx: which arrays they let pass, and which they do not."""

from __future__ import annotations

import numpy as np
import pytest

from nnx._ext import arrays

F = np.float32
X, C = np.ones((2, 3, 4, 5), F), np.ones(3, F)


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def unaligned(a):
    return np.frombuffer(b"." + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape)


# arrays that no kernel takes, whatever their shape
STRANGE = (X.astype(np.float16), X.astype(np.int32), X.astype(">f4"), unaligned(X), X.tolist(), None)


def test_has_kernel():
    assert arrays.has_kernel(X) and arrays.has_kernel(X, C, read_only(X)) and arrays.has_kernel(X.astype(float))
    assert not arrays.has_kernel() and not arrays.has_kernel(X, C.astype(float))
    for a in STRANGE:
        assert not arrays.has_kernel(a) and not arrays.has_kernel(X, a)


def test_takes_images():
    assert (
        arrays.takes_images(X, None, C, read_only(C))
        and arrays.takes_images(X[0, 0])
        and arrays.takes_images(X[..., None])
    )
    for a in (X[:0], C, X[..., None, None]):
        assert not arrays.takes_images(a)
    assert not arrays.takes_images(X, C.astype(float))
    for a in STRANGE[:-1]:
        assert not arrays.takes_images(X, a)
        assert not isinstance(a, np.ndarray) or not arrays.takes_images(a)


def test_are_per_channel():
    def ask(x=X, moves=True, weight=C, bias=C, mean=C, var=C):
        return arrays.are_per_channel(x, moves, weight, bias, mean, var)

    assert ask() and ask(weight=None, bias=None, mean=None, var=None) and ask(x=X[:0]) and ask(x=X[:, :, 0, 0])
    assert ask(weight=read_only(C), bias=read_only(C), x=read_only(X))
    assert not ask(x=C) and not ask(x=X.astype(float))
    for name in ("weight", "bias", "mean", "var"):
        for wrong in (np.ones(4, F), np.ones((3, 1), F), np.ones(3), unaligned(C), [1.0, 1.0, 1.0]):
            assert not ask(**{name: wrong}), name
    for name in ("mean", "var"):
        assert not ask(**{name: read_only(C)}) and ask(**{name: read_only(C)}, moves=False)
    for a in STRANGE:
        assert not ask(x=a)


def test_are_for_conv():
    w, b = np.ones((6, 3, 2, 2), F), np.ones(6, F)
    assert arrays.are_for_conv(2, X, w, b) and arrays.are_for_conv(2, X, read_only(w), None)
    assert not arrays.are_for_conv(1, X, w, b) and not arrays.are_for_conv(2, X, w.astype(float), b)
    assert not arrays.are_for_conv(2, X, w, b.astype(float))
    for axis in range(4):
        assert not arrays.are_for_conv(2, X, w.take([], axis), None)
    for a in STRANGE:
        assert not arrays.are_for_conv(2, a, w, b) and not arrays.are_for_conv(2, X, a, b)
        assert a is None or not arrays.are_for_conv(2, X, w, a)


@pytest.mark.parametrize("dtype", (F, np.float64))
def test_empty_per_channel(dtype):
    made = arrays.empty_per_channel(X.astype(dtype), 3)
    assert [(a.shape, a.dtype, a.base) for a in made] == 3 * [((3,), dtype, None)]
    with pytest.raises(ValueError, match="empty_per_channel: expected an array of 2 dimensions or more, got 1"):
        arrays.empty_per_channel(C, 1)
