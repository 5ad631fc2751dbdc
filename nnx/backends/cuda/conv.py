"""Convolution by cuBLAS and the kernels of conv.cu and winograd.cu: channels-last in memory.

Which algorithm runs is decided by shape, in `_forward_algorithm` and the two functions behind it:

* "product": filters of one tap, stride 1: the images are matrices already, pixels by channels;
* "winograd": 3x3, stride 1, one group, at least 16 channels in and out, float32 (nnx/backends/cuda/winograd.py), unless
  `nnx.set_conv_precision("high")` forbids it or rounded products of columns are faster;
* "depthwise": each filter sees one channel: a thread for each number of the result;
* "direct": images of few channels: the filters are kept in shared memory, and nothing else is written but the result;
* everything else is "columns": what lies under the filter at each pixel is written as a row, a bounded number of rows
  at a time, and multiplied by the filters.

A data gradient of stride 1 is a convolution of gy with the filters turned around; with a stride it is "scattered":
columns are computed as a product, and each number of gx gathers its own. Weight gradients are sums over pixels: they
are computed in a fixed number of parts, side by side, which are added in order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from nnx.backends import precision
from nnx.backends.base.conv import Pairs, Sizes, output_sizes
from nnx.backends.cuda import _cublas, winograd
from nnx.backends.cuda._arrays import channels_last, contiguous, empty_channels_last, has_kernel, nhwc
from nnx.backends.cuda._kernels import Kernels, blocks_for
from nnx.backends.cuda.gemm import bias_relu, column_sums

_kernels = Kernels("conv")

_WORKSPACE = 48 << 20  # bytes of columns at a time: they are mostly read from the second-level cache
_INDEX = 2**31 - 1  # kernels count elements with 32 bits

_FEW_CHANNELS = 8  # neighbours in a warp read pixels that many numbers apart, at most
_FEW_WEIGHTS = 256  # taps times channels: MOST_WEIGHTS of conv.cu
_POSITIONS, _FILTERS = 1024, 8  # that a block of `direct` computes: 256 * PIXELS and FILTERS of conv.cu
_TAPS = 9  # that a block of `depthwise_weight` computes: TAPS of conv.cu
_CHUNK = 8192  # numbers of gy that a block of `depthwise_weight` reads, at least
_MOST_CHUNKS = 256

_TILE = 64  # rows and columns of a result that cuBLAS gives one block, roughly
_BLOCKS = 264  # that fill a large card: weight gradients have few rows and columns, and are cut along their sum instead
_SHORTEST_SUM = 512


class ConvCUDA:
    """Convolution and its two gradients."""

    xp: Any

    def conv(
        self,
        x: Any,
        w: Any,
        b: Any,
        stride: Sizes,
        padding: Pairs,
        dilation: Sizes,
        groups: int,
        relu: bool = False,
    ) -> Any:
        out = output_sizes(x.shape[2:], w.shape[2:], stride, padding, dilation)
        y_shape = (len(x), len(w), *out)
        if not _takes(x, w, x.shape, w.shape, y_shape) or (b is not None and b.dtype != x.dtype):
            return super().conv(x, w, b, stride, padding, dilation, groups, relu)  # type: ignore[misc]
        y = empty_channels_last(y_shape, x.dtype)
        g = _geometry(x.shape, tuple(w.shape), y_shape, stride, padding, dilation, groups)
        images, result = nhwc(channels_last(x)), nhwc(y)
        w, b = contiguous(w), b if b is None else contiguous(b)
        how = _forward_algorithm(g, _fast(x))
        for part, gp in _parts(g):
            _forward(self.xp, how, images[part], w, b, gp, relu, result[part])
        return y

    def conv_data_grad(
        self, gy: Any, w: Any, x_shape: Sizes, stride: Sizes, padding: Pairs, dilation: Sizes, groups: int
    ) -> Any:
        if not _takes(gy, w, x_shape, w.shape, gy.shape):
            return super().conv_data_grad(gy, w, x_shape, stride, padding, dilation, groups)  # type: ignore[misc]
        gx = empty_channels_last(tuple(x_shape), gy.dtype)
        g = _geometry(tuple(x_shape), tuple(w.shape), gy.shape, stride, padding, dilation, groups)
        images, result = nhwc(channels_last(gy)), nhwc(gx)
        w = contiguous(w)
        how = _data_algorithm(g, _fast(gy))
        for part, gp in _parts(g):
            _data_grad(self.xp, how, images[part], w, gp, result[part])
        return gx

    def conv_weight_grad(
        self, gy: Any, x: Any, w_shape: Sizes, stride: Sizes, padding: Pairs, dilation: Sizes, groups: int
    ) -> Any:
        if not _takes(gy, x, x.shape, w_shape, gy.shape):
            return super().conv_weight_grad(gy, x, w_shape, stride, padding, dilation, groups)  # type: ignore[misc]
        g = _geometry(x.shape, tuple(w_shape), gy.shape, stride, padding, dilation, groups)
        errors, images = nhwc(channels_last(gy)), nhwc(channels_last(x))
        how = _weight_algorithm(g, _fast(gy))
        gw = None
        for part, gp in _parts(g):
            more = _weight_grad(self.xp, how, errors[part], images[part], gp)
            gw = more if gw is None else gw + more
        return gw.reshape(w_shape)  # type: ignore[union-attr]

    def channel_sum(self, gy: Any) -> Any:
        if not has_kernel(gy) or not 2 <= gy.ndim <= 5:
            return super().channel_sum(gy)  # type: ignore[misc]
        rows = nhwc(channels_last(gy))
        return column_sums(self.xp, rows.reshape(gy.size // max(gy.shape[1], 1), gy.shape[1]))


# -- what runs -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Geometry:
    """The shapes of a convolution; positions have three dimensions, missing ones in front are 1."""

    images: int
    channels: int
    filters: int
    groups: int
    size: Sizes  # of x
    out: Sizes  # of y
    kernel: Sizes
    stride: Sizes
    dilation: Sizes
    low: Sizes  # zeros before the first element

    @cached_property
    def taps(self) -> int:
        return math.prod(self.kernel)

    @cached_property
    def group(self) -> int:
        """Channels of a group."""
        return self.channels // self.groups

    @cached_property
    def pixels(self) -> int:
        """Of x, all images."""
        return self.images * math.prod(self.size)

    @cached_property
    def positions(self) -> int:
        """Of y, all images."""
        return self.images * math.prod(self.out)

    @cached_property
    def numbers(self) -> Sizes:
        """As kernels take them: GEOMETRY of conv.cu."""
        return (*self.size, *self.out, *self.kernel, *self.stride, *self.dilation, *self.low)

    @cached_property
    def turned(self) -> _Geometry:
        """Of the convolution that the data gradient is where the stride is 1: gy with the filters turned around."""
        border = tuple([d * (k - 1) - p for k, d, p in zip(self.kernel, self.dilation, self.low, strict=True)])
        swapped = replace(self, channels=self.filters, filters=self.channels, size=self.out, out=self.size)
        return replace(swapped, stride=(1, 1, 1), low=border)


@lru_cache(1024)
def _geometry(
    x_shape: Sizes, w_shape: Sizes, y_shape: Sizes, stride: Sizes, padding: Pairs, dilation: Sizes, groups: int
) -> _Geometry:
    ones = (1,) * (5 - len(x_shape))
    low = tuple([p[0] for p in padding])
    return _Geometry(
        x_shape[0], x_shape[1], w_shape[0], groups, (*ones, *x_shape[2:]), (*ones, *y_shape[2:]), (*ones, *w_shape[2:]),
        (*ones, *stride), (*ones, *dilation), (*((0,) * len(ones)), *low),
    )  # fmt: skip


@lru_cache(1024)
def _forward_algorithm(g: _Geometry, fast: str | None) -> str:
    if _is_product(g):
        return "product"
    if g.group == 1 and g.groups > 1:
        return "depthwise"
    if g.groups == 1 and g.channels <= _FEW_CHANNELS and g.taps * g.channels <= _FEW_WEIGHTS:
        return "direct"
    return "winograd" if _suits_winograd(g, fast) else "columns"


@lru_cache(1024)
def _data_algorithm(g: _Geometry, fast: str | None) -> str:
    """As `_forward_algorithm`, of the turned convolution where there is one, or "scattered"."""
    if _is_product(g):
        return "product"
    if g.group == 1 and g.groups > 1:
        return "depthwise"
    if max(g.stride) > 1:
        return "scattered"
    how = _forward_algorithm(g.turned, fast)
    return "columns" if how == "depthwise" else how


@lru_cache(1024)
def _weight_algorithm(g: _Geometry, fast: str | None) -> str:
    if _is_product(g):
        return "product"
    if g.group == 1:
        return "depthwise"
    return "winograd" if _suits_winograd(g, fast) else "columns"


def _is_product(g: _Geometry) -> bool:
    return g.groups == 1 and g.taps == 1 and max(g.stride) == 1 and not any(g.low) and g.size == g.out


def _suits_winograd(g: _Geometry, fast: str | None) -> bool:
    return (
        fast is not None
        and g.kernel == (1, 3, 3)
        and max(g.stride) == max(g.dilation) == g.groups == 1
        and g.low[0] == 0
        and g.size[0] == g.out[0]
        and winograd.pays(g.images * g.out[0], g.channels, g.filters, g.out[1:], fast)
    )


def _fast(x: Any) -> str | None:
    """The precision of products if Winograd's algorithm may run: float32, and nobody has asked for direct summation."""
    allowed = x.dtype == np.float32 and precision.get_conv_precision() == "default"
    return precision.get_float32_matmul_precision() if allowed else None


def _takes(a: Any, b: Any, x_shape: Sizes, w_shape: Sizes, y_shape: Sizes) -> bool:
    """Whether there is a kernel: the types, something to do, and images that can be counted one by one at least."""
    sizes = math.prod(x_shape[1:]), math.prod(w_shape), math.prod(y_shape[1:])
    return has_kernel(a, b) and a.ndim <= 5 and x_shape[0] > 0 and min(sizes) > 0 and max(sizes) <= _INDEX


def _parts(g: _Geometry) -> Iterator[tuple[slice, _Geometry]]:
    """The batch in parts whose elements can be counted with 32 bits: nearly always one."""
    largest = max(math.prod(g.size) * g.channels, math.prod(g.out) * g.filters)
    step = max(_INDEX // largest, 1)
    for first in range(0, g.images, step):
        images = min(step, g.images - first)
        yield slice(first, first + images), g if images == g.images else replace(g, images=images)


# -- the three passes, of channels-last arrays -----------------------------------------------------


def _forward(xp: Any, how: str, x: Any, w: Any, b: Any, g: _Geometry, relu: bool, y: Any) -> None:
    if how == "winograd":
        winograd.forward(xp, _planes(x, g.size), w, b, g.low[1:], relu, _planes(y, g.out))
    elif how == "direct":
        _direct(x, w, b, g, relu, False, y)
    elif how == "depthwise":
        finish = (y, 0, int(relu)) if b is None else (b, 1, int(relu))
        args = (x, _by_filter(xp, w, g), *finish, y.size, g.filters, g.filters // g.groups, *g.numbers, y)
        _kernels.launch("depthwise", y.dtype, blocks_for(y.size), 256, *args)
    else:
        rows = y.reshape(g.positions, g.filters)
        if how == "product":
            _cublas.multiply(rows, x.reshape(g.pixels, g.channels), w.reshape(g.filters, g.channels).T)
        else:
            _multiply_columns(xp, x, _by_tap(xp, w, g).swapaxes(1, 2), g, rows)
        bias_relu(rows, b, relu)


def _data_grad(xp: Any, how: str, gy: Any, w: Any, g: _Geometry, gx: Any) -> None:
    if how == "product":
        rows = gx.reshape(g.pixels, g.channels)
        _cublas.multiply(rows, gy.reshape(g.positions, g.filters), w.reshape(g.filters, g.channels))
    elif how == "winograd":
        winograd.data_grad(xp, _planes(gy, g.out), w, g.low[1:], _planes(gx, g.size))
    elif how == "direct":
        _direct(gy, w, None, g.turned, False, True, gx)
    elif how == "depthwise":
        n = gx.size
        args = (gy, _by_filter(xp, w, g), n, g.filters, g.filters // g.groups, *g.numbers, gx)
        _kernels.launch("depthwise_data", gx.dtype, blocks_for(n), 256, *args)
    elif how == "columns":
        _multiply_columns(xp, gy, _turned(xp, w, g), g.turned, gx.reshape(g.pixels, g.channels))
    else:
        _scatter(xp, gy, w, g, gx)


def _weight_grad(xp: Any, how: str, gy: Any, x: Any, g: _Geometry) -> Any:
    if how == "winograd":
        return winograd.weight_grad(xp, _planes(gy, g.out), _planes(x, g.size), g.low[1:])
    if how == "depthwise":
        return _depthwise_weight_grad(xp, gy, x, g)
    rows = gy.reshape(g.positions, g.filters)
    width = g.taps * g.group
    per_chunk = g.positions if how == "product" else _rows_at_once(g, gy.itemsize)
    parts = _sum_parts_of(g, min(per_chunk, g.positions), width)
    sums = xp.empty((parts * g.groups, g.filters // g.groups, width), gy.dtype)
    columns = x.reshape(g.pixels, g.channels) if how == "product" else _columns_buffer(xp, g, per_chunk, gy.dtype)
    for first in range(0, g.positions, per_chunk):
        count = min(per_chunk, g.positions - first)
        if how == "columns":
            _im2col(x, first, count, g, columns)
        _add_products(sums, rows[first : first + count], columns[:count], g, parts, first > 0)
    # from (parts, K, taps, C / G) to (K, C / G, taps)
    return _summed(xp, sums, parts, (g.filters, g.taps, g.group), (width, 1, g.taps))


def _planes(x: Any, size: Sizes) -> Any:
    """Channels-last images of two dimensions, (N, H, W, C), or all the planes of three."""
    return x.reshape(len(x) * size[0], *size[1:], x.shape[-1])


# -- columns ---------------------------------------------------------------------------------------


def _rows_at_once(g: _Geometry, itemsize: int) -> int:
    """Positions whose columns fit the workspace: all, or as many as make chunks of about one size."""
    most = max(_WORKSPACE // (g.taps * g.channels * itemsize), 1)
    return -(-g.positions // -(-g.positions // most))


def _columns_buffer(xp: Any, g: _Geometry, rows: int, dtype: Any) -> Any:
    return xp.empty((rows, g.taps * g.channels), dtype)


def _im2col(x: Any, first: int, rows: int, g: _Geometry, columns: Any) -> None:
    """columns[row, (group, tap, channel)] = what lies under the filters at position first + row."""
    name, lanes = _lanes("im2col", g.group, x, columns)
    channels, group = g.channels // lanes, g.group // lanes
    grid = blocks_for(rows * channels)
    _kernels.launch(name, x.dtype, grid, 256, x, first, rows, channels, group, *g.numbers, columns)


def _lanes(name: str, group: int, *arrays: Any) -> tuple[str, int]:
    """The kernel that moves 16 bytes of channels at a time where that is possible, and how many channels those are."""
    width = 16 // arrays[0].itemsize
    packs = group % width == 0 and all(a.data.ptr % 16 == 0 for a in arrays)
    return (f"{name}_packs", width) if packs else (name, 1)


def _multiply_columns(xp: Any, x: Any, matrix: Any, g: _Geometry, y: Any) -> None:
    """Rows y (positions, filters) = columns of x times matrix (G, taps C/G, K/G), some rows at a time."""
    step = _rows_at_once(g, x.itemsize)
    columns = _columns_buffer(xp, g, step, x.dtype)
    for first in range(0, g.positions, step):
        rows = min(step, g.positions - first)
        _im2col(x, first, rows, g, columns)
        to = _by_group(y[first : first + rows], g.groups)
        _cublas.multiply(to, _by_group(columns[:rows], g.groups), matrix)


def _by_group(rows: Any, groups: int) -> Any:
    """A view (G, rows, columns / G) of a matrix."""
    n, columns = rows.shape
    return rows.reshape(n, groups, columns // groups).swapaxes(0, 1)


def _scatter(xp: Any, gy: Any, w: Any, g: _Geometry, gx: Any) -> None:
    """gx where there is a stride: columns gy w, which each number of gx then gathers; whole images at a time."""
    matrix = _by_tap(xp, w, g)
    positions, width = math.prod(g.out), g.taps * g.channels
    step = min(max(_WORKSPACE // (positions * width * gy.itemsize), 1), g.images)
    step = -(-g.images // -(-g.images // step))
    columns = xp.empty((step * positions, width), gy.dtype)
    rows = gy.reshape(g.positions, g.filters)
    name, lanes = _lanes("col2im", g.group, columns, gx)
    for first in range(0, g.images, step):
        images = min(step, g.images - first)
        part = slice(first * positions, (first + images) * positions)
        to = columns[: images * positions]
        _cublas.multiply(_by_group(to, g.groups), _by_group(rows[part], g.groups), matrix)
        place = gx[first : first + images]
        n = place.size // lanes
        args = (n, g.channels // lanes, g.group // lanes, *g.numbers, place)
        _kernels.launch(name, gx.dtype, blocks_for(n), 256, columns, *args)


# -- filters and their gradients -------------------------------------------------------------------


def _rearranged(xp: Any, w: Any, shape: Sizes, steps: Sizes, offset: int = 0) -> Any:
    """An array out[h, i, j, k] = w[offset + (h, i, j, k) . steps], w's numbers in a row."""
    out = xp.empty(shape, w.dtype)
    n = out.size
    _kernels.launch("rearrange", w.dtype, blocks_for(n), 256, w, offset, n, *shape[1:], *steps, out)
    return out


def _by_tap(xp: Any, w: Any, g: _Geometry) -> Any:
    """w (K, C/G, taps) as one matrix for each group, (G, K/G, taps C/G)."""
    out = _rearranged(xp, w, (1, g.filters, g.taps, g.group), (0, g.group * g.taps, 1, g.taps))
    return out.reshape(g.groups, g.filters // g.groups, g.taps * g.group)


def _by_filter(xp: Any, w: Any, g: _Geometry) -> Any:
    """w (K, 1, taps) as (taps, K)."""
    return _rearranged(xp, w, (1, 1, g.taps, g.filters), (0, 0, 1, g.taps))


def _turned(xp: Any, w: Any, g: _Geometry) -> Any:
    """w (K, C/G, taps) as one matrix for each group, (G, taps K/G, C/G), the taps backwards."""
    filters, size = g.filters // g.groups, g.group * g.taps
    out = _rearranged(xp, w, (g.groups, g.taps, filters, g.group), (filters * size, -1, size, g.taps), g.taps - 1)
    return out.reshape(g.groups, g.taps * filters, g.group)


def _direct(x: Any, w: Any, b: Any, g: _Geometry, relu: bool, turned: bool, y: Any) -> None:
    """w is read as it lies, (filters, channels, taps), or if `turned` as (channels, filters, taps backwards)."""
    offset, steps = 0, (g.channels * g.taps, g.taps, 1)
    if turned:
        offset, steps = g.taps - 1, (g.taps, g.filters * g.taps, -1)
    grid = (-(-g.positions // _POSITIONS), -(-g.filters // _FILTERS))
    finish = (y, 0, int(relu)) if b is None else (b, 1, int(relu))
    args = (x, w, offset, *steps, *finish, g.positions, g.channels, g.filters, *g.numbers, y)
    _kernels.launch("direct", y.dtype, grid, 256, *args)


def _depthwise_weight_grad(xp: Any, gy: Any, x: Any, g: _Geometry) -> Any:
    chunks = max(1, min(g.positions * g.filters // _CHUNK, g.positions, _MOST_CHUNKS))
    chunk = -(-g.positions // chunks)
    chunks = -(-g.positions // chunk)
    parts = xp.empty((chunks, g.taps, g.filters), gy.dtype)
    grid = (-(-g.filters // 256), chunks, -(-g.taps // _TAPS))
    args = (gy, x, g.positions, chunk, g.filters, g.filters // g.groups, *g.numbers, parts)
    _kernels.launch("depthwise_weight", gy.dtype, grid, 256, *args)
    return _summed(xp, parts, chunks, (1, g.taps, g.filters), (0, 1, g.taps))


def _sum_parts_of(g: _Geometry, rows: int, width: int) -> int:
    """Into how many parts the sum of a weight gradient is cut: so many that the card is full, none too short."""
    if g.groups > 1:
        return 1
    blocks = -(-g.filters // _TILE) * -(-width // _TILE)
    return max(1, min(_BLOCKS // blocks, rows // _SHORTEST_SUM))


def _add_products(sums: Any, gy: Any, columns: Any, g: _Geometry, parts: int, add: bool) -> None:
    """sums[part] (+)= gy^T columns over the part's rows; rows that are left over go to part 0."""
    if g.groups > 1:
        left, right = _by_group(gy, g.groups).swapaxes(1, 2), _by_group(columns, g.groups)
        return _cublas.multiply(sums, left, right, add)
    rows = len(gy)
    each = rows // parts
    whole = each * parts
    if each:
        left = gy[:whole].reshape(parts, each, gy.shape[1]).swapaxes(1, 2)
        _cublas.multiply(sums, left, columns[:whole].reshape(parts, each, columns.shape[1]), add)
    if rows > whole:
        _cublas.multiply(sums[0], gy[whole:].T, columns[whole:], True)
    return None


def _summed(xp: Any, parts: Any, count: int, shape: Sizes, steps: Sizes) -> Any:
    """A fresh array: element (i, j, k) of each part, summed in order, at (i, j, k) . steps."""
    n = math.prod(shape)
    out = xp.empty(n, parts.dtype)
    _kernels.launch("sum_parts", out.dtype, blocks_for(n), 256, parts, count, n, shape[1], shape[2], *steps, out)
    return out
