"""Which arrays the kernels take, and how others are brought into the layout they want."""

from __future__ import annotations

import numpy as np

from nnx._ext import gemm as _gemm
from nnx._ext.memory import empty, empty_like
from nnx._ext.threads import threads_for

__all__ = [
    "TO_FIRST",
    "channels_last",
    "contiguous",
    "dense",
    "empty_channels_last",
    "has_kernel",
    "is_dense",
    "like",
    "nhwc",
    "threads_for",
]

_SMALL = 4096  # elements below which NumPy copies as fast
_F32 = np.dtype(np.float32)
_F64 = np.dtype(np.float64)
_TO_LAST = {2: (0, 1), 3: (0, 2, 1), 4: (0, 2, 3, 1), 5: (0, 2, 3, 4, 1)}
TO_FIRST = {2: (0, 1), 3: (0, 2, 1), 4: (0, 3, 1, 2), 5: (0, 4, 1, 2, 3)}


def has_kernel(*arrays: np.ndarray) -> bool:
    """Tell whether all arrays are float32 or all float64, native and aligned."""
    dtype = arrays[0].dtype
    if dtype != _F32 and dtype != _F64:
        return False
    for a in arrays:
        if a.dtype != dtype or not a.flags.aligned:
            return False
    return True


def is_dense(a: np.ndarray) -> bool:
    """Tell whether the memory of `a` has no holes and no overlap, in some order of the axes."""
    if a.flags.forc:
        return True
    expected = a.itemsize
    for stride, n in sorted((s, n) for s, n in zip(a.strides, a.shape, strict=True) if n != 1):
        if stride != expected:
            return False
        expected *= n
    return True


def dense(a: np.ndarray) -> np.ndarray:
    """Return `a` if it is dense, else a C-contiguous copy."""
    return a if is_dense(a) else np.ascontiguousarray(a)


def like(a: np.ndarray, ref: np.ndarray) -> np.ndarray:
    """Return `a` with the strides of `ref` (same shape, dense); copied only if needed."""
    if a.strides == ref.strides:
        return a
    for n, s, t in zip(a.shape, a.strides, ref.strides, strict=True):
        if n != 1 and s != t:
            break
    else:
        return a
    if ref.flags.c_contiguous:
        return contiguous(a)
    if 3 <= a.ndim <= 5 and nhwc(ref).flags.c_contiguous:
        return channels_last(a)
    out = empty_like(ref, a.dtype)
    out[...] = a
    return out


def nhwc(a: np.ndarray) -> np.ndarray:
    """Return the view (N, spatial..., C) of an array (N, C, spatial...) of 2 to 5 dimensions.

    It is C-contiguous exactly if `a` is channels-last in memory. A kernel takes this view and
    computes its steps from the shape: the strides of axes of length 1 mean nothing, so an array
    with one channel or with 1x1 maps is channels-last whatever its strides say, and never copied.
    """
    return a.transpose(_TO_LAST[a.ndim])


def channels_last(a: np.ndarray) -> np.ndarray:
    """Return `a`, (N, C, spatial...), channels-last in memory; copied only if needed."""
    view = a.transpose(_TO_LAST[a.ndim])
    if view.flags.c_contiguous:
        return a
    if a.size < _SMALL or not a.flags.c_contiguous or not has_kernel(a):
        return np.ascontiguousarray(view).transpose(TO_FIRST[a.ndim])
    out = empty(view.shape, a.dtype)
    n, c = a.shape[:2]
    pixels = a.size // (n * c)
    _gemm.transpose(a.reshape(n, c, pixels), out.reshape(n, pixels, c), threads_for(a.size, 4.0))
    return out.transpose(TO_FIRST[a.ndim])


def contiguous(a: np.ndarray) -> np.ndarray:
    """Return `a` C-contiguous, by a threaded copy if it is a large channels-last image batch."""
    if a.flags.c_contiguous:
        return a
    if a.size < _SMALL or not 3 <= a.ndim <= 5 or not has_kernel(a) or not nhwc(a).flags.c_contiguous:
        return np.ascontiguousarray(a)
    out = empty(a.shape, a.dtype)
    n, c = a.shape[:2]
    pixels = a.size // (n * c)
    _gemm.transpose(nhwc(a).reshape(n, pixels, c), out.reshape(n, c, pixels), threads_for(a.size, 4.0))
    return out


def empty_channels_last(shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
    """Return an uninitialised array of shape (N, C, spatial...) that is channels-last in memory."""
    n, c, *spatial = shape
    return empty((n, *spatial, c), dtype).transpose(TO_FIRST[len(shape)])
