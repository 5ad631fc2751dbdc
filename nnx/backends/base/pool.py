"""Pooling in plain NumPy: the maximum, the mean or the sum of every window.

Geometry, one entry per spatial dimension: `kernel` (size of the window), `stride`, `dilation` and
`padding` are ints. Padding is the same on both sides; a padded element is -inf to a maximum and 0
to a sum. Arrays are (N, C, spatial...).

With `ceil_mode` the number of windows is rounded up, and the last one may hang over the end; but a
window that would start behind the input is left out, so that no window is empty.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnx.backends.base.conv import Sizes, tap

_quiet = np.errstate(all="ignore")  # NaN and infinity pass through without a warning


class PoolOps:
    """Max, average and adaptive average pooling, each with its gradient below it."""

    xp: Any
    pad: Any

    # -- maximum -------------------------------------------------------------------------------

    @_quiet
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
        """``y[n, c, o] = max over f of x[n, c, o * stride + f * dilation - padding]``.

        Returns (y, index), both (N, C, out...). `index` numbers the elements of the window in C
        order: 0 to F - 1, uint8 for windows of up to 255 elements, else int32. Of equal maxima the
        first is taken. NaN is larger than everything, and the last NaN is taken. A window of
        nothing but -inf has the index of its first element inside the input.

        positive:  x is a positive part whose gradient is cut off here: where the maximum is 0 the
                   index is `nowhere(index.dtype)`, which no element has
        """
        out = pooled_sizes(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
        index = first_taps(out, kernel, stride, padding, dilation)
        index = self.xp.asarray(index.astype(index_dtype(kernel)))
        index = self.xp.broadcast_to(index, (*x.shape[:2], *out)).copy()
        y = self.xp.full_like(x, -math.inf, shape=index.shape)
        x = self._reached(x, out, kernel, stride, padding, dilation, -math.inf)
        for number, f in enumerate(np.ndindex(*kernel)):
            value = x[:, :, *tap(f, stride, dilation, out)]
            better = (value > y) | (value != value)
            self.xp.copyto(y, value, where=better)
            self.xp.copyto(index, number, where=better)
        if positive:
            self.xp.copyto(index, nowhere(index.dtype), where=y <= 0)
        return y, index

    @_quiet
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
        """Send each gradient to the element that was the maximum; an element of several windows
        gets their sum."""
        out = gy.shape[2:]
        ends = _ends(x_shape[2:], out, kernel, stride, padding, dilation)
        gx = self.xp.zeros_like(gy, shape=(*x_shape[:2], *ends))
        for number, f in enumerate(np.ndindex(*kernel)):
            gx[:, :, *tap(f, stride, dilation, out)] += self.xp.where(index == number, gy, 0)
        return _inside(gx, x_shape, padding)

    def pool_positions(
        self,
        index: np.ndarray,
        sizes: Sizes,
        kernel: Sizes,
        stride: Sizes,
        padding: Sizes,
        dilation: Sizes,
    ) -> np.ndarray:
        """The int64 position in the flattened spatial dimensions for each index of `max_pool`."""
        flat = self.xp.zeros(index.shape, np.int64)
        rest = index.astype(np.int64)
        after = math.prod(kernel)
        for axis, n in enumerate(sizes):
            after //= kernel[axis]
            f, rest = rest // after, rest % after
            o = self.xp.arange(index.shape[2 + axis]).reshape(-1, *(1,) * (len(sizes) - 1 - axis))
            flat = flat * n + (o * stride[axis] + f * dilation[axis] - padding[axis])
        return flat

    # -- mean and sum --------------------------------------------------------------------------

    @_quiet
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
        """``y[n, c, o] = sum over f of x[n, c, o * stride + f - padding] / divisor``.

        The divisor is `divisor_override` if it is given (1: sum pooling), else the number of
        elements of the window: with `count_include_pad` the padded ones too, else those inside the
        input. What hangs over the padding's end in `ceil_mode` never counts.
        """
        ones = (1,) * len(kernel)
        out = pooled_sizes(x.shape[2:], kernel, stride, padding, ones, ceil_mode)
        y = self._reached(x, out, kernel, stride, padding, ones, 0)
        # The sum over a box is a sum along one axis after the other: k + k additions, not k * k.
        for axis, (k, s, o) in enumerate(zip(kernel, stride, out, strict=True), 2):
            y = sum(y[_along(axis, tap((f,), (s,), (1,), (o,)))] for f in range(k))
        counts = window_counts(x.shape[2:], out, kernel, stride, padding, count_include_pad)
        y /= self._divisor(counts, divisor_override, y.dtype)
        return y

    @_quiet
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
        """Share each gradient equally among the elements of its window."""
        out, ones = gy.shape[2:], (1,) * len(kernel)
        counts = window_counts(x_shape[2:], out, kernel, stride, padding, count_include_pad)
        gx = gy / self._divisor(counts, divisor_override, gy.dtype)
        ends = _ends(x_shape[2:], out, kernel, stride, padding, ones)
        for axis, (k, s, o, end) in enumerate(zip(kernel, stride, out, ends, strict=True), 2):
            g = gx
            gx = self.xp.zeros_like(g, shape=(*g.shape[:axis], end, *g.shape[axis + 1 :]))
            for f in range(k):
                gx[_along(axis, tap((f,), (s,), (1,), (o,)))] += g
        return _inside(gx, x_shape, padding)

    @_quiet
    def adaptive_avg_pool(self, x: np.ndarray, output_size: Sizes) -> np.ndarray:
        """The mean of `output_size` windows that cover the input as evenly as they can.

        Along an axis of size L with O windows, window o is ``floor(o L / O)`` to
        ``ceil((o + 1) L / O)``.
        """
        for axis, o in enumerate(output_size, 2):
            y = self.xp.empty_like(x, shape=(*x.shape[:axis], o, *x.shape[axis + 1 :]))
            for i, (start, end) in enumerate(zip(*adaptive_windows(x.shape[axis], o), strict=True)):
                part = x[_along(axis, (slice(start, end),))]
                y[_along(axis, (i,))] = part.sum(axis=axis) / y.dtype.type(end - start)
            x = y
        return x

    @_quiet
    def adaptive_avg_pool_backward(self, gy: np.ndarray, x_shape: Sizes) -> np.ndarray:
        """Share each gradient equally among the elements of its window."""
        gx = gy
        for axis, n in enumerate(x_shape[2:], 2):
            g, o = gx, gy.shape[axis]
            gx = self.xp.zeros_like(g, shape=(*g.shape[:axis], n, *g.shape[axis + 1 :]))
            for i, (start, end) in enumerate(zip(*adaptive_windows(n, o), strict=True)):
                share = g[_along(axis, (slice(i, i + 1),))] / g.dtype.type(end - start)
                gx[_along(axis, (slice(start, end),))] += share
        return gx

    # -- helpers -------------------------------------------------------------------------------

    def _reached(
        self,
        x: np.ndarray,
        out: Sizes,
        kernel: Sizes,
        stride: Sizes,
        padding: Sizes,
        dilation: Sizes,
        value: float,
    ) -> np.ndarray:
        """x padded with `value` as far as the last window reaches."""
        sizes = x.shape[2:]
        ends = _ends(sizes, out, kernel, stride, padding, dilation)
        pairs = tuple((p, end - n - p) for n, p, end in zip(sizes, padding, ends, strict=True))
        if not any(map(any, pairs)):
            return x
        return self.pad(x, ((0, 0), (0, 0), *pairs), "constant", value)

    def _divisor(self, counts: tuple[np.ndarray, ...], override: int | None, dtype: Any) -> Any:
        """The divisor of each output position, of shape (out...), or one number."""
        if override is not None:
            return dtype.type(override)
        divisor = np.ones((), np.int64)
        for count in counts:
            divisor = divisor[..., None] * count
        return self.xp.asarray(divisor.astype(dtype))


# -- arithmetic of windows, for every backend ------------------------------------------------------


def pooled_sizes(
    sizes: Sizes,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
) -> Sizes:
    """The number of windows along each spatial dimension; less than 1 where none fits."""
    out = []
    for n, k, s, p, d in zip(sizes, kernel, stride, padding, dilation, strict=True):
        room = n + 2 * p - d * (k - 1) - 1
        count = (room + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (count - 1) * s >= n + p:
            count -= 1
        out.append(count)
    return tuple(out)


def index_dtype(kernel: Sizes) -> np.dtype:
    """The type of a position inside the window."""
    return np.dtype(np.uint8 if math.prod(kernel) <= 255 else np.int32)


def nowhere(dtype: Any) -> int:
    """The index of no element of any window."""
    return 255 if dtype == np.uint8 else -1


def first_taps(out: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes) -> np.ndarray:
    """The number of each window's first element behind the low padding: int64 (out...)."""
    number = np.zeros((), np.int64)
    for o, k, s, p, d in zip(out, kernel, stride, padding, dilation, strict=True):
        padded = np.maximum(p - np.arange(o) * s, 0)  # how far the window starts in the padding
        first = np.minimum(-(-padded // d), k - 1)
        number = number[..., None] * k + first
    return number


def window_bounds(n: int, out: int, k: int, s: int, p: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the windows along an axis of size n start and end, cut to the input."""
    start = np.arange(out) * s - p
    return np.maximum(start, 0), np.minimum(start + k, n)


def window_counts(
    sizes: Sizes, out: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, include_pad: bool
) -> tuple[np.ndarray, ...]:
    """How many elements the windows have along each axis, to divide by (their product)."""
    counts = []
    for n, o, k, s, p in zip(sizes, out, kernel, stride, padding, strict=True):
        start, end = window_bounds(n, o, k, s, p)
        if include_pad:
            start = np.arange(o) * s - p
            end = np.minimum(start + k, n + p)
        counts.append(np.maximum(end - start, 1))
    return tuple(counts)


def adaptive_windows(n: int, out: int) -> tuple[np.ndarray, np.ndarray]:
    """Where `out` windows that cover n elements evenly start and end."""
    o = np.arange(out)
    return o * n // max(out, 1), -(-(o + 1) * n // max(out, 1))


def _ends(sizes: Sizes, out: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes) -> Sizes:
    """The padded size along each axis that holds low padding, input and the last window."""
    return tuple(
        max(n + p, (o - 1) * s + (k - 1) * d + 1)
        for n, o, k, s, p, d in zip(sizes, out, kernel, stride, padding, dilation, strict=True)
    )


def _inside(padded: np.ndarray, x_shape: Sizes, padding: Sizes) -> np.ndarray:
    inside = tuple(slice(p, p + n) for n, p in zip(x_shape[2:], padding, strict=True))
    return padded[:, :, *inside]


def _along(axis: int, part: tuple) -> tuple:
    return (slice(None),) * axis + part
