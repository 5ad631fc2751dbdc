"""Which arrays the kernels take, and how others are brought into the layout they want."""

from __future__ import annotations

import numpy as np

from nnx._ext import gemm as _gemm
from nnx._ext.arrays import (
    empty_channels_last,
    empty_per_channel,
    has_kernel,
    is_channels_last,
    nchw,
    nhwc,
    takes_images,
)
from nnx._ext.memory import empty, empty_like
from nnx._ext.threads import threads_for

__all__ = [
    "channels_last",
    "contiguous",
    "dense",
    "empty_channels_last",
    "empty_per_channel",
    "has_kernel",
    "is_channels_last",
    "is_dense",
    "like",
    "nchw",
    "nhwc",
    "takes_images",
    "threads_for",
]

_SMALL = 4096  # elements below which NumPy copies as fast


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
    if 3 <= a.ndim <= 5 and is_channels_last(ref):
        return channels_last(a)
    out = empty_like(ref, a.dtype)
    out[...] = a
    return out


def channels_last(a: np.ndarray) -> np.ndarray:
    """Return `a`, (N, C, spatial...), channels-last in memory; copied only if needed."""
    if is_channels_last(a):
        return a
    view = nhwc(a)
    if a.size < _SMALL or not a.flags.c_contiguous or not has_kernel(a):
        return nchw(np.ascontiguousarray(view))
    out = empty(view.shape, a.dtype)
    n, c = a.shape[:2]
    pixels = a.size // (n * c)
    _gemm.transpose(a.reshape(n, c, pixels), out.reshape(n, pixels, c), threads_for(a.size, 4.0))
    return nchw(out)


def contiguous(a: np.ndarray) -> np.ndarray:
    """Return `a` C-contiguous, by a threaded copy if it is a large channels-last image batch."""
    if a.flags.c_contiguous:
        return a
    if a.size < _SMALL or not 3 <= a.ndim <= 5 or not has_kernel(a) or not is_channels_last(a):
        return np.ascontiguousarray(a)
    out = empty(a.shape, a.dtype)
    n, c = a.shape[:2]
    pixels = a.size // (n * c)
    _gemm.transpose(nhwc(a).reshape(n, pixels, c), out.reshape(n, c, pixels), threads_for(a.size, 4.0))
    return out
