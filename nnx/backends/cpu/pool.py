"""Pooling by ext/pool.pyx: channels-last in memory, a row of the result at a time."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from nnx._ext import pool as _pool
from nnx._ext.memory import empty
from nnx.backends.base.conv import Sizes
from nnx.backends.base.pool import (
    adaptive_windows,
    index_dtype,
    pooled_sizes,
    window_bounds,
    window_counts,
)
from nnx.backends.cpu._arrays import (
    channels_last,
    empty_channels_last,
    has_kernel,
    nchw,
    nhwc,
    threads_for,
)

_LARGEST = 2**31 - 1  # of the sizes that the kernels take
_MANY = 4096  # windows along the axes, whose bounds are not kept from call to call
# by the number of spatial dimensions: volumes have axes of length 1 for those that are missing
_WITH: dict[int, Any] = {1: np.s_[:, None, None], 2: np.s_[:, None], 3: np.s_[:]}
_WITHOUT: dict[int, Any] = {1: np.s_[:, 0, 0], 2: np.s_[:, 0], 3: np.s_[:]}

Boxes = tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]


class PoolKernels:
    """Max, average and adaptive average pooling, each with its gradient below it."""

    def max_pool(
        self,
        x: np.ndarray,
        kernel: Sizes,
        stride: Sizes,
        padding: Sizes,
        dilation: Sizes,
        ceil_mode: bool,
        positive: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        if not _takes(x):
            return super().max_pool(  # type: ignore[misc]
                x, kernel, stride, padding, dilation, ceil_mode, positive
            )
        out, positions = _max_pooled(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
        shape = (x.shape[0], *(1,) * (3 - len(out)), *out, x.shape[1])
        y, index = empty(shape, x.dtype), empty(shape, positions)
        threads = threads_for(max(x.size, y.size))
        geometry = _windows(kernel, stride, padding, dilation)
        _pool.max_pool(_volumes(x), y, index, *geometry, threads, positive)
        return _images(y, len(out)), _images(index, len(out))

    def max_pool_backward(
        self,
        gy: np.ndarray,
        index: np.ndarray,
        x_shape: Sizes,
        kernel: Sizes,
        stride: Sizes,
        padding: Sizes,
        dilation: Sizes,
    ) -> np.ndarray:
        if not _takes(gy) or max(x_shape) > _LARGEST:
            return super().max_pool_backward(  # type: ignore[misc]
                gy, index, x_shape, kernel, stride, padding, dilation
            )
        gx = empty_channels_last(x_shape, gy.dtype)
        threads = threads_for(max(gx.size, gy.size))
        geometry = _windows(kernel, stride, padding, dilation)
        _pool.max_pool_backward(_volumes(gy), _volumes(index), _volumes(gx), *geometry, threads)
        return gx

    def avg_pool(
        self,
        x: np.ndarray,
        kernel: Sizes,
        stride: Sizes,
        padding: Sizes,
        ceil_mode: bool,
        count_include_pad: bool,
        divisor_override: int | None,
    ) -> np.ndarray:
        if not _takes(x):
            return super().avg_pool(  # type: ignore[misc]
                x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override
            )
        sizes, ones = x.shape[2:], (1,) * len(kernel)
        out = pooled_sizes(sizes, kernel, stride, padding, ones, ceil_mode)
        boxes = _kept(_boxes, sizes, out, kernel, stride, padding, count_include_pad, divisor_override)
        return _mean_pool(x, out, boxes)

    def avg_pool_backward(
        self,
        gy: np.ndarray,
        x_shape: Sizes,
        kernel: Sizes,
        stride: Sizes,
        padding: Sizes,
        ceil_mode: bool,
        count_include_pad: bool,
        divisor_override: int | None,
    ) -> np.ndarray:
        if not _takes(gy):
            return super().avg_pool_backward(  # type: ignore[misc]
                gy, x_shape, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override
            )
        out = gy.shape[2:]
        boxes = _kept(_boxes, x_shape[2:], out, kernel, stride, padding, count_include_pad, divisor_override)
        return _mean_pool_backward(gy, x_shape, boxes)

    def adaptive_avg_pool(self, x: np.ndarray, output_size: Sizes) -> np.ndarray:
        if not _takes(x):
            return super().adaptive_avg_pool(x, output_size)  # type: ignore[misc]
        return _mean_pool(x, output_size, _kept(_adaptive_boxes, x.shape[2:], output_size))

    def adaptive_avg_pool_backward(self, gy: np.ndarray, x_shape: Sizes) -> np.ndarray:
        if not _takes(gy):
            return super().adaptive_avg_pool_backward(gy, x_shape)  # type: ignore[misc]
        return _mean_pool_backward(gy, x_shape, _kept(_adaptive_boxes, x_shape[2:], gy.shape[2:]))


def _mean_pool(x: np.ndarray, out: Sizes, boxes: Boxes) -> np.ndarray:
    y = empty_channels_last((*x.shape[:2], *out), x.dtype)
    _pool.mean_pool(_volumes(x), _volumes(y), *boxes, threads_for(max(x.size, y.size)))
    return y


def _mean_pool_backward(gy: np.ndarray, x_shape: Sizes, boxes: Boxes) -> np.ndarray:
    gx = empty_channels_last(x_shape, gy.dtype)
    _pool.mean_pool_backward(_volumes(gy), _volumes(gx), *boxes, threads_for(max(gx.size, gy.size)))
    return gx


@lru_cache(1024)
def _max_pooled(*geometry: Any) -> tuple[Sizes, Any]:
    """The number of windows along each axis, and the type of positions in a window."""
    return pooled_sizes(*geometry), index_dtype(geometry[1])


def _takes(a: np.ndarray) -> bool:
    return has_kernel(a) and 3 <= a.ndim <= 5 and max(a.shape) <= _LARGEST


def _volumes(a: np.ndarray) -> np.ndarray:
    """(N, C, spatial...) as the C-contiguous (N, D, H, W, C) that the kernels take."""
    view = nhwc(channels_last(a))
    return view[_WITH[a.ndim - 2]]


def _images(volumes: np.ndarray, dimensions: int) -> np.ndarray:
    """What `_volumes` made of (N, C, spatial...)."""
    return nchw(volumes[_WITHOUT[dimensions]])


@lru_cache(1024)
def _windows(kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes) -> tuple[Sizes, Sizes, Sizes, Sizes]:
    """The geometry of three dimensions: those that are not there have windows of one element."""
    ones, zeros = (1,) * (3 - len(kernel)), (0,) * (3 - len(kernel))
    return ones + kernel, ones + stride, zeros + padding, ones + dilation


def _kept(function: Any, sizes: Sizes, out: Sizes, *rest: Any) -> Boxes:
    """The boxes from `function`, or those of an earlier call if they are not too many to keep."""
    return (function if sum(out) <= _MANY else function.__wrapped__)(sizes, out, *rest)


@lru_cache(maxsize=64)
def _boxes(
    sizes: Sizes,
    out: Sizes,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Boxes:
    bounds = [window_bounds(*axis) for axis in zip(sizes, out, kernel, stride, padding, strict=True)]
    counts = window_counts(sizes, out, kernel, stride, padding, count_include_pad)
    if divisor_override is not None:
        counts = tuple(np.ones(o) for o in out)
        counts[0][...] = divisor_override
    return _three_axes(bounds, counts)


@lru_cache(maxsize=64)
def _adaptive_boxes(sizes: Sizes, out: Sizes) -> Boxes:
    bounds = [adaptive_windows(n, o) for n, o in zip(sizes, out, strict=True)]
    return _three_axes(bounds, tuple(end - start for start, end in bounds))


def _three_axes(bounds: list, counts: tuple) -> Boxes:
    """Starts, ends and counts for three dimensions, in the types that the kernels take."""
    missing = 3 - len(bounds)
    start, end, one = np.zeros(1, np.int64), np.ones(1, np.int64), np.ones(1)
    return (
        (start,) * missing + tuple(np.asarray(s, np.int64) for s, _ in bounds),
        (end,) * missing + tuple(np.asarray(e, np.int64) for _, e in bounds),
        (one,) * missing + tuple(np.asarray(c, np.float64) for c in counts),
    )
