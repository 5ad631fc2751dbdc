"""Pooling by pool.cu: channels-last in memory, gradients gathered and so the same in every run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from nnx.backends.base.conv import Sizes
from nnx.backends.base.pool import index_dtype, nowhere, pooled_sizes
from nnx.backends.cuda._arrays import channels_last, empty_channels_last, has_kernel, nhwc
from nnx.backends.cuda._kernels import Kernels, blocks_for

_k = Kernels("pool")

_LIMIT = 2**31  # elements of an array, and positions
_LARGE = 64  # elements of a window from which a block computes it, not a thread
_MEDIUM = 16  # the same where the result has
_FEW = 2**17  # or fewer elements, which would not fill a device with threads
_MOST_BLOCKS = 65535

# What the sums of windows are divided by: the `kind` of the kernels.
_INSIDE, _PADDED, _EVEN = 0, 1, 2


class PoolCUDA:
    """Max, average and adaptive average pooling, each with its gradient below it."""

    def max_pool(
        self,
        x: Any,
        kernel: Sizes,
        stride: Sizes,
        padding: Sizes,
        dilation: Sizes,
        ceil_mode: bool,
        positive: bool = False,
    ) -> tuple[Any, Any]:
        out = pooled_sizes(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
        axes = _axes(x.shape, out, kernel, stride, padding, dilation)
        if axes is None or not has_kernel(x):
            return super().max_pool(  # type: ignore[misc]
                x, kernel, stride, padding, dilation, ceil_mode, positive
            )
        y = empty_channels_last((*x.shape[:2], *out), x.dtype)
        index = empty_channels_last(y.shape, index_dtype(kernel))
        _launch(f"max_forward_{index.dtype.name}", y, axes, (), (nhwc(channels_last(x)), nhwc(y), nhwc(index)))
        if positive:
            self.xp.copyto(index, nowhere(index.dtype), where=y <= 0)  # type: ignore[attr-defined]
        return y, index

    def max_pool_backward(
        self, gy: Any, index: Any, x_shape: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes
    ) -> Any:
        axes = _axes(x_shape, gy.shape[2:], kernel, stride, padding, dilation)
        if axes is None or not has_kernel(gy):
            return super().max_pool_backward(  # type: ignore[misc]
                gy, index, x_shape, kernel, stride, padding, dilation
            )
        gx = empty_channels_last(x_shape, gy.dtype)
        arrays = nhwc(channels_last(gy)), nhwc(channels_last(index)), nhwc(gx)
        _launch(f"max_backward_{index.dtype.name}", gx, axes, (), arrays)
        return gx

    def avg_pool(
        self,
        x: Any,
        kernel: Sizes,
        stride: Sizes,
        padding: Sizes,
        ceil_mode: bool,
        count_include_pad: bool,
        divisor_override: int | None,
    ) -> Any:
        ones = (1,) * len(kernel)
        out = pooled_sizes(x.shape[2:], kernel, stride, padding, ones, ceil_mode)
        axes = _axes(x.shape, out, kernel, stride, padding, ones)
        if axes is None or not has_kernel(x):
            return super().avg_pool(  # type: ignore[misc]
                x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override
            )
        y = empty_channels_last((*x.shape[:2], *out), x.dtype)
        inside = math.prod(min(k, n) for k, n in zip(kernel, x.shape[2:], strict=True))
        _mean(x, y, axes, _PADDED if count_include_pad else _INSIDE, float(divisor_override or 0), inside)
        return y

    def avg_pool_backward(
        self,
        gy: Any,
        x_shape: Sizes,
        kernel: Sizes,
        stride: Sizes,
        padding: Sizes,
        ceil_mode: bool,
        count_include_pad: bool,
        divisor_override: int | None,
    ) -> Any:
        axes = _axes(x_shape, gy.shape[2:], kernel, stride, padding, (1,) * len(kernel))
        if axes is None or not has_kernel(gy):
            return super().avg_pool_backward(  # type: ignore[misc]
                gy, x_shape, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override
            )
        gx = empty_channels_last(x_shape, gy.dtype)
        kind = _PADDED if count_include_pad else _INSIDE
        parameters = kind, float(divisor_override or 0)
        _launch("mean_backward", gx, axes, parameters, (nhwc(channels_last(gy)), nhwc(gx)))
        return gx

    def adaptive_avg_pool(self, x: Any, output_size: Sizes) -> Any:
        ones = (1,) * len(output_size)
        axes = _axes(x.shape, output_size, ones, ones, (0,) * len(output_size), ones)
        if axes is None or not has_kernel(x):
            return super().adaptive_avg_pool(x, output_size)  # type: ignore[misc]
        y = empty_channels_last((*x.shape[:2], *output_size), x.dtype)
        inside = math.prod(-(-n // max(o, 1)) for n, o in zip(x.shape[2:], output_size, strict=True))
        _mean(x, y, axes, _EVEN, 0.0, inside)
        return y

    def adaptive_avg_pool_backward(self, gy: Any, x_shape: Sizes) -> Any:
        out = gy.shape[2:]
        ones = (1,) * len(out)
        axes = _axes(x_shape, out, ones, ones, (0,) * len(out), ones)
        if axes is None or not has_kernel(gy):
            return super().adaptive_avg_pool_backward(gy, x_shape)  # type: ignore[misc]
        gx = empty_channels_last(x_shape, gy.dtype)
        _launch("mean_backward", gx, axes, (_EVEN, 0.0), (nhwc(channels_last(gy)), nhwc(gx)))
        return gx


def _axes(
    x_shape: Sizes, out: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes
) -> tuple[int, ...] | None:
    """The geometry of three dimensions as the kernels take it; those that are not there have one window of one element.

    None where an image, or a position in it, is too large for the kernels, which count in 32 bits.
    """
    if not 1 <= len(out) <= 3 or min(out) < 0:
        return None
    if x_shape[1] * max(math.prod(x_shape[2:]), math.prod(out)) >= _LIMIT:
        return None
    axes: list[int] = [1, 1, 1, 1, 0, 1] * (3 - len(out))
    for n, o, k, s, p, d in zip(x_shape[2:], out, kernel, stride, padding, dilation, strict=True):
        if max(n + 2 * p, o * s + k * d) >= _LIMIT // 2:
            if o > 1 or max(n + 2 * p, k * d) >= _LIMIT // 2:
                return None
            s = 1 if o == 1 else s
        axes += (n, o, k, s, p, d)
    return tuple(axes)


def _mean(x: Any, y: Any, axes: tuple[int, ...], kind: int, number: float, inside: int) -> None:
    """Sum the windows of x, of about `inside` elements each, into y."""
    arrays = nhwc(channels_last(x)), nhwc(y)
    if inside < (_LARGE if y.size > _FEW else _MEDIUM):
        _launch("mean_forward", y, axes, (kind, number), arrays)
        return
    channels = y.shape[1]
    wide = min(32, 1 << max(channels - 1, 0).bit_length())
    for n, parts in _parts(y, arrays):
        grid = min(n * math.prod(y.shape[2:]), _MOST_BLOCKS), -(-channels // wide)
        _k.launch("mean_forward_large", y.dtype, grid, (wide, 256 // wide), n, channels, *axes, kind, number, *parts)


def _launch(name: str, result: Any, axes: tuple[int, ...], parameters: tuple, arrays: tuple) -> None:
    """Launch a kernel that computes each element, or each pack of channels, of the result on its own."""
    channels = result.shape[1]
    packed = 16 // result.itemsize if channels % (16 // result.itemsize) == 0 else 1
    for n, parts in _parts(result, arrays):
        blocks = blocks_for(n * math.prod(result.shape[1:]) // packed)
        _k.launch(name, result.dtype, blocks, 256, n, channels, *axes, *parameters, *parts)


def _parts(result: Any, arrays: tuple) -> Iterator[tuple[int, tuple]]:
    """Cut the batch so that no part of an array has 2^31 elements: a part's number of images, and its arrays."""
    images = result.shape[0]
    if not result.size:
        return
    most = (_LIMIT - 1) // max(math.prod(a.shape[1:]) for a in arrays)
    if images <= most:
        yield images, arrays
        return
    for first in range(0, images, most):
        yield min(most, images - first), tuple(a[first : first + most] for a in arrays)
