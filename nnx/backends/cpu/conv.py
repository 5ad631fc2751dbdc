"""Convolution by ext/conv.pyx: channels-last in memory, tile by tile."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx._ext import conv as _conv
from nnx.backends.base.conv import Pairs, Sizes, output_sizes
from nnx.backends.cpu._arrays import (
    channels_last,
    empty_channels_last,
    has_kernel,
    nhwc,
    threads_for,
)
from nnx.backends.cpu.gemm import column_sums

_FEW_CHANNELS = 4  # up to here the kernel gathers from channels-first images as fast as it would copy them


class ConvKernels:
    """Convolution and its two gradients."""

    def conv(
        self,
        x: np.ndarray,
        w: np.ndarray,
        b: np.ndarray | None,
        stride: Sizes,
        padding: Pairs,
        dilation: Sizes,
        groups: int,
    ) -> np.ndarray:
        if not _takes(x, w) or (b is not None and b.dtype != x.dtype):
            return super().conv(x, w, b, stride, padding, dilation, groups)  # type: ignore[misc]
        out = output_sizes(x.shape[2:], w.shape[2:], stride, padding, dilation)
        y = empty_channels_last((x.shape[0], w.shape[0], *out), x.dtype)
        low = tuple([p[0] for p in padding])
        threads = _threads(y, w)
        _conv.forward(_source(x), _whole(w), _bias(b), y, stride, low, dilation, groups, threads)
        return y

    def conv_data_grad(
        self,
        gy: np.ndarray,
        w: np.ndarray,
        x_shape: Sizes,
        stride: Sizes,
        padding: Pairs,
        dilation: Sizes,
        groups: int,
    ) -> np.ndarray:
        if not _takes(gy, w):
            return super().conv_data_grad(  # type: ignore[misc]
                gy, w, x_shape, stride, padding, dilation, groups
            )
        gx = empty_channels_last(x_shape, gy.dtype)
        low = tuple([p[0] for p in padding])
        threads = _threads(gy, w)
        _conv.data_grad(_source(gy), _whole(w), None, gx, stride, low, dilation, groups, threads)
        return gx

    def conv_weight_grad(
        self,
        gy: np.ndarray,
        x: np.ndarray,
        w_shape: Sizes,
        stride: Sizes,
        padding: Pairs,
        dilation: Sizes,
        groups: int,
    ) -> np.ndarray:
        if not _takes(gy, x):
            return super().conv_weight_grad(  # type: ignore[misc]
                gy, x, w_shape, stride, padding, dilation, groups
            )
        gw = np.empty(w_shape, gy.dtype)
        low = tuple([p[0] for p in padding])
        threads = _threads(gy, gw)
        _conv.weight_grad(channels_last(gy), _source(x), gw, stride, low, dilation, groups, threads)
        return gw

    def channel_sum(self, gy: np.ndarray) -> np.ndarray:
        if not has_kernel(gy) or not 2 <= gy.ndim <= 5:
            return super().channel_sum(gy)  # type: ignore[misc]
        rows = nhwc(channels_last(gy))
        return column_sums(rows.reshape(gy.size // max(gy.shape[1], 1), gy.shape[1]))


def _takes(a: np.ndarray, b: np.ndarray) -> bool:
    return has_kernel(a, b) and a.ndim <= 5


def _threads(y: np.ndarray, w: np.ndarray) -> int:
    """Threads for a product of each output pixel with all weights that it meets."""
    return threads_for(y.size * (w.size // max(w.shape[0], 1)), 0.1)


def _source(x: np.ndarray) -> np.ndarray:
    """`x` as the kernel reads it: channels-last, unless it has so few channels that any order will do."""
    if x.shape[1] > _FEW_CHANNELS or any(s % x.itemsize for s in x.strides):
        return channels_last(x)
    return x


def _whole(w: np.ndarray) -> np.ndarray:
    """`w` with strides of whole elements (a field of a record array has others)."""
    return w.copy() if any(s % w.itemsize for s in w.strides) else w


def _bias(b: np.ndarray | None) -> Any:
    return b if b is None or (b.flags.c_contiguous and b.flags.aligned) else np.ascontiguousarray(b)
