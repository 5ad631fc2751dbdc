"""Winograd's F(4x4, 3x3) by winograd.cu and batched products: 3x3 filters, stride 1, one group, float32.

Images are channels-last, (N, H, W, C); filters (K, C, 3, 3). The batch is worked through in chunks of tiles, so that
the transformed arrays have a bounded size.

The 36 products are float32's where `nnx.cuda.set_float32_matmul_precision` is "highest" or "high": the largest error is
below 1e-4 of the result's RMS, as on the CPU. Rounding is amplified about ten times, so that TF32's products come out
with the error that bfloat16's have without it, 3e-3 of the RMS (the largest 0.06): they are used at "medium".
"""

from __future__ import annotations

from typing import Any

from nnx.backends import precision
from nnx.backends.cuda import _cublas
from nnx.backends.cuda._kernels import Kernels, blocks_for

_kernels = Kernels("winograd")

_WORKSPACE = 48 << 20  # bytes of each transformed array
_FEWEST_CHANNELS = 16  # in and out; below, the transforms cost more than they save
_FEWEST_PIXELS = 512  # of the batch; below, transforming the filters costs more than the product
_SMALLEST_SIDE = 4  # of an image: tiles are as large
_TILE = 64  # rows and columns of a product that cuBLAS gives one block, roughly
_BLOCKS = 264  # that fill a large card
_SHORTEST_SUM = 128  # tiles

# Channels times filters. Beyond the first, products of columns in TF32 take less time than ours in float32; beyond the
# second, the transformed filters take too much memory, four times that of the filters.
_FEW_FILTERS, _MOST_FILTERS = 1 << 16, 1 << 20


def pays(images: int, channels: int, filters: int, out: tuple[int, ...], how: str) -> bool:
    """Whether it is worth its transforms; `out` is the size of a result's image, `how` the precision that is set."""
    return (
        channels * filters <= (_FEW_FILTERS if how == "high" else _MOST_FILTERS)
        and min(channels, filters) >= _FEWEST_CHANNELS
        and min(out) >= _SMALLEST_SIDE
        and images * out[0] * out[1] >= _FEWEST_PIXELS
    )


def forward(xp: Any, x: Any, w: Any, b: Any, low: tuple[int, ...], relu: bool, y: Any) -> None:
    """y = conv(x, w) + b, or its positive part, with `low` zeros before the first row and column."""
    filters, channels = w.shape[:2]
    transformed = _filters(xp, w, False).reshape(36, filters, channels).swapaxes(1, 2)
    _correlate(xp, x, transformed, b, low, relu, y)


def data_grad(xp: Any, gy: Any, w: Any, low: tuple[int, ...], gx: Any) -> None:
    """The gradient of `forward` with respect to x: gy convolved with the filters turned around."""
    border = tuple([2 - p for p in low])
    _correlate(xp, gy, _filters(xp, w, True), None, border, False, gx)


def weight_grad(xp: Any, gy: Any, x: Any, low: tuple[int, ...]) -> Any:
    """The gradient of `forward` with respect to w, (K, C, 3, 3)."""
    images, height, width, filters = gy.shape
    channels = x.shape[-1]
    down, across, tiles = _tiles(gy.shape)
    chunk = _chunk(tiles, max(channels, filters), gy.itemsize)
    blocks = 36 * -(-filters // _TILE) * -(-channels // _TILE)
    parts = max(1, min(_BLOCKS // blocks, chunk // _SHORTEST_SUM))
    each = -(-chunk // parts)
    rows = parts * each  # tiles beyond the last are zeros
    inputs = xp.empty((36 * parts, each, channels), gy.dtype)
    errors = xp.empty((36 * parts, each, filters), gy.dtype)
    sums = xp.empty((36 * parts, filters, channels), gy.dtype)
    for first in range(0, tiles, rows):
        _input(x, first, rows, tiles, down, across, low, inputs)
        n = rows * filters
        args = (gy, first, rows, tiles, down, across, height, width, filters, errors)
        _kernels.launch("winograd_gradient", gy.dtype, blocks_for(n), 256, *args)
        _cublas.multiply(sums, errors.swapaxes(1, 2), inputs, first > 0, _products())
    gw = xp.empty((filters, channels, 3, 3), gy.dtype)
    n = filters * channels
    _kernels.launch("winograd_weight", gy.dtype, blocks_for(n), 256, sums, parts, n, gw)
    return gw


def _filters(xp: Any, w: Any, turned: bool) -> Any:
    """(36, K, C)."""
    n = w.shape[0] * w.shape[1]
    out = xp.empty((36, *w.shape[:2]), w.dtype)
    _kernels.launch("winograd_filter", w.dtype, blocks_for(n), 256, w, n, int(turned), out)
    return out


def _correlate(xp: Any, x: Any, w: Any, b: Any, low: tuple[int, ...], relu: bool, y: Any) -> None:
    """y = x * w + b with transformed filters w (36, channels, filters)."""
    images, height, width, filters = y.shape
    channels = x.shape[-1]
    down, across, tiles = _tiles(y.shape)
    chunk = _chunk(tiles, max(channels, filters), x.itemsize)
    all_inputs, all_products = xp.empty(36 * chunk * channels, x.dtype), xp.empty(36 * chunk * filters, x.dtype)
    for first in range(0, tiles, chunk):
        rows = min(chunk, tiles - first)
        inputs = all_inputs[: 36 * rows * channels].reshape(36, rows, channels)
        products = all_products[: 36 * rows * filters].reshape(36, rows, filters)
        _input(x, first, rows, tiles, down, across, low, inputs)
        _cublas.multiply(products, inputs, w, how=_products())
        bias = y if b is None else b
        args = (products, bias, int(b is not None), int(relu), first, rows, down, across, height, width, filters, y)
        _kernels.launch("winograd_output", y.dtype, blocks_for(rows * filters), 256, *args)


def _input(x: Any, first: int, rows: int, tiles: int, down: int, across: int, low: tuple[int, ...], out: Any) -> None:
    images, height, width, channels = x.shape
    args = (x, first, rows, tiles, down, across, height, width, channels, *low, out)
    _kernels.launch("winograd_input", x.dtype, blocks_for(rows * channels), 256, *args)


def _products() -> str:
    """The precision of the products: see above."""
    return "high" if precision.get_float32_matmul_precision() == "medium" else "highest"


def _tiles(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Tiles of 4x4 that cover an image (N, H, W, C): down, across, and in the whole batch."""
    down, across = -(-shape[1] // 4), -(-shape[2] // 4)
    return down, across, shape[0] * down * across


def _chunk(tiles: int, channels: int, itemsize: int) -> int:
    """Tiles at a time: all, or as many as make chunks of about one size."""
    most = max(_WORKSPACE // (36 * channels * itemsize), 1)
    return -(-tiles // -(-tiles // most))
