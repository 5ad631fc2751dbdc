"""Which arrays the kernels take, and how others are brought into the layout they want.

Nothing here waits for the device: everything is decided by shape, strides and type.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = [
    "channels_last",
    "contiguous",
    "dense",
    "empty_channels_last",
    "has_kernel",
    "is_dense",
    "like",
    "nhwc",
]

_F32 = np.dtype(np.float32)
_F64 = np.dtype(np.float64)
_TO_LAST = {2: (0, 1), 3: (0, 2, 1), 4: (0, 2, 3, 1), 5: (0, 2, 3, 4, 1)}
_TO_FIRST = {2: (0, 1), 3: (0, 2, 1), 4: (0, 3, 1, 2), 5: (0, 4, 1, 2, 3)}


def has_kernel(*arrays: Any) -> bool:
    """Tell whether all arrays are float32 or all float64. (CuPy has no other byte order, and aligns every element.)"""
    dtype = arrays[0].dtype
    if dtype != _F32 and dtype != _F64:
        return False
    return all(a.dtype == dtype for a in arrays)


def is_dense(a: Any) -> bool:
    """Tell whether the memory of `a` has no holes and no overlap, in some order of the axes."""
    if a.flags.forc:
        return True
    expected = a.itemsize
    for stride, n in sorted((s, n) for s, n in zip(a.strides, a.shape, strict=True) if n != 1):
        if stride != expected:
            return False
        expected *= n
    return True


def dense(a: Any) -> Any:
    """Return `a` if it is dense, else a C-contiguous copy."""
    return a if is_dense(a) else contiguous(a)


def contiguous(a: Any) -> Any:
    """Return `a` C-contiguous; copied only if needed."""
    return a if a.flags.c_contiguous else a.copy()


def like(a: Any, ref: Any) -> Any:
    """Return `a` with the strides of `ref` (same shape, dense); copied only if needed."""
    if a.strides == ref.strides:
        return a
    for n, s, t in zip(a.shape, a.strides, ref.strides, strict=True):
        if n != 1 and s != t:
            import cupy

            out = cupy.empty_like(ref, a.dtype)
            out[...] = a
            return out
    return a


def nhwc(a: Any) -> Any:
    """Return the view (N, spatial..., C) of an array (N, C, spatial...) of 2 to 5 dimensions.

    It is C-contiguous exactly if `a` is channels-last in memory. The strides of axes of length 1 mean nothing, so that
    an array with one channel or with 1x1 maps is channels-last whatever its strides say, and never copied: kernels
    compute their steps from the shape.
    """
    return a.transpose(_TO_LAST[a.ndim])


def channels_last(a: Any) -> Any:
    """Return `a`, (N, C, spatial...), channels-last in memory; copied only if needed."""
    view = nhwc(a)
    return a if view.flags.c_contiguous else view.copy().transpose(_TO_FIRST[a.ndim])


def empty_channels_last(shape: tuple[int, ...], dtype: Any) -> Any:
    """Return an uninitialised array of shape (N, C, spatial...) that is channels-last in memory."""
    import cupy

    n, c, *spatial = shape
    return cupy.empty((n, *spatial, c), dtype).transpose(_TO_FIRST[len(shape)])
