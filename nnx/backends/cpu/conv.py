"""Convolution by ext/winograd.pyx, ext/spread.pyx, ext/direct.pyx, ext/conv.pyx and their kin: channels-last in memory.

Which of them runs is decided by shape; the rules were measured (benchmarks/NOTES.md):

* `_suits_winograd`: Winograd's F(4x4, 3x3) for 3x3 filters with stride 1 and enough channels, in float32, unless
  `nnx.set_conv_precision("high")`; `_suits_images`: image by image, with both gradients at once;
* `_suits_spread`: so few filters that most of a vector's lanes would be idle: lanes are pixels times filters;
* `_suits_direct`: filters that stay in the cache: every number is read where it lies;
* `_is_product`: many filters of one tap are a product of matrices;
* `_suits_pooled`: behind max pooling and with few channels, the sums for weights and bias leave out what is zero;
* everything else gathers tiles of the column matrix: very large filters, gradients of many weights over few pixels,
  data gradients of groups or volumes with a stride.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from nnx._ext import conv as _conv
from nnx._ext import conv_pooled as _conv_pooled
from nnx._ext import conv_weight as _conv_weight
from nnx._ext import direct as _direct
from nnx._ext import direct_data as _direct_data
from nnx._ext import direct_weight as _direct_weight
from nnx._ext import gemm as _gemm
from nnx._ext import spread as _spread
from nnx._ext import winograd as _winograd
from nnx._ext import winograd_images as _winograd_images
from nnx._ext.memory import empty
from nnx.backends import precision
from nnx.backends.base.conv import Pairs, Sizes, output_sizes
from nnx.backends.base.later import Later, LaterGradient, Moments
from nnx.backends.cpu._arrays import (
    channels_last,
    empty_channels_last,
    has_kernel,
    is_channels_last,
    nchw,
    nhwc,
    threads_for,
)
from nnx.backends.cpu.gemm import column_sums
from nnx.backends.cpu.norm import LaterNorm, LaterNormGradient

_FEW_CHANNELS = 4  # up to here the kernels read channels-first images as fast as they would copy them

_WINOGRAD_CHANNELS = 16  # in and out; below, the transforms cost more than they save
_MANY_WEIGHTS = 32768  # and more of them than
_WEIGHTS_PER_PIXEL = 200  # have a gradient that is computed from columns: the sums are filters, where they lie
_WINOGRAD_PIXELS = 128  # of the batch, at least; more where there are many filters

_IMAGE_WEIGHTS = 4096  # filters times channels, at most, where convolutions go image by image. Between batch norms:
_IMAGE_BYTES = 262144  # bytes of an image, at most,
_IMAGE_TILES = 256  # and 4x4 tiles of all images, at least; otherwise:
_COLD_IMAGES, _COLD_TILES = 16, 768  # images and their tiles, at least, so that threads share them evenly,
_COLD_BYTES = 4 << 20  # and bytes of x and y: they come from memory, not from a cache

_SPREAD_ROWS = (3, 5, 7)  # of a filter, for which there are kernels
_SPREAD_NUMBERS = 131072  # of the rows that are in work at once: half of the second-level cache

_PRODUCT_WEIGHTS = 65536  # of filters with one tap; below, tiles of pixels stay in the cache
_DIRECT_WEIGHTS = 131072  # numbers; beyond, the filters fall out of the cache between two rows of an image
_DIRECT_TAPS = 1024  # that the kernel can list where they are no runs
_DIRECT_REACH = 128  # rows or columns that a filter covers: bands of an image hold that many more
_SCATTER_CHANNELS = 16  # below, a data gradient of stride 1 pays for whole vectors of channels that it has not

_POOLED_FEWER = 3  # times fewer windows than pixels, at least
_POOLED_CHANNELS = 16  # at most; the sums of more do not stay in the first-level cache
_POOLED_LARGEST = 65536  # stride, padding and dilation that the kernel takes
_POOLED_BAND = 1 << 20  # numbers of the input under one row of windows, at most
_POOLED_UNDER, _POOLED_MOST = 64, 512  # numbers under a filter, where the data gradient needs the rest anyway


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
        relu: bool = False,
    ) -> np.ndarray:
        if not _takes(x, w) or (b is not None and b.dtype != x.dtype):
            return super().conv(x, w, b, stride, padding, dilation, groups, relu)  # type: ignore[misc]
        how, low, work, y_shape = _plan(x.shape, w.shape, stride, padding, dilation, groups, _fast(x), _few(x))
        if how == "product":
            return _images(_gemm.multiply(_pixels(x), _matrix(w).T, b, relu), y_shape)
        y = empty_channels_last(y_shape, x.dtype)
        threads = threads_for(work, 0.1)
        if how == "winograd":
            _winograd.forward(channels_last(x), _whole(w), _bias(b), y, low, relu, threads)
        elif how == "images":
            _winograd_images.forward(channels_last(x), None, _whole(w), _bias(b), y, low, relu, threads)
        elif how == "spread":
            _spread.forward(_source(x), _whole(w), _bias(b), y, low, relu, threads)
        elif how == "direct":
            _direct.forward(_source(x), _whole(w), _bias(b), y, stride, low, dilation, groups, relu, threads)
        else:
            _conv.forward(_source(x), _whole(w), _bias(b), y, stride, low, dilation, groups, relu, threads)
        return y

    def conv_max_pool(
        self,
        x: np.ndarray,
        w: np.ndarray,
        b: np.ndarray | None,
        stride: Sizes,
        padding: Pairs,
        dilation: Sizes,
        groups: int,
        windows: tuple[Sizes, ...],
        ceil_mode: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        how = ""
        if _takes(x, w) and (b is None or b.dtype == x.dtype):
            how, low, work, y_shape = _plan(x.shape, w.shape, stride, padding, dilation, groups, _fast(x), _few(x))
        if (how != "spread" and how != "direct") or not _are_squares(y_shape, windows, ceil_mode):
            return super().conv_max_pool(  # type: ignore[misc]
                x, w, b, stride, padding, dilation, groups, windows, ceil_mode
            )
        size = y_shape[2:]
        y = empty_channels_last((*y_shape[:2], size[0] // 2, size[1] // 2), x.dtype)
        index = empty_channels_last(y.shape, np.dtype(np.uint8))
        arguments = _source(x), _whole(w), _bias(b), y, index, size
        threads = threads_for(work, 0.1)
        if how == "spread":
            _spread.forward_pooled(*arguments, low, threads)
        else:
            _direct.forward_pooled(*arguments, stride, low, dilation, groups, threads)
        return y, index

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
        how, low = _data_plan(tuple(x_shape), w.shape, stride, padding, dilation, groups, _fast(gy))
        if how == "product":
            return _images(_gemm.multiply(_pixels(gy), _matrix(w), None), x_shape)
        gx = empty_channels_last(x_shape, gy.dtype)
        threads = _threads(gy, w)
        if how == "winograd":
            _winograd.data_grad(channels_last(gy), _whole(w), gx, low, threads)
        elif how == "turned":
            border = _border(w.shape, low, dilation)
            turned = _turned(_whole(w), groups)
            _direct.forward(channels_last(gy), turned, None, gx, stride, border, dilation, groups, False, threads)
        elif how == "scattered":
            _direct_data.data_grad(channels_last(gy), _whole(w), None, gx, stride, low, dilation, groups, threads)
        else:
            _conv.data_grad(_source(gy), _whole(w), None, gx, stride, low, dilation, groups, threads)
        return gx

    def conv_data_grad_joined(
        self,
        gy: np.ndarray,
        w: np.ndarray,
        x_shape: Sizes,
        stride: Sizes,
        padding: Pairs,
        dilation: Sizes,
        groups: int,
        added: np.ndarray | None,
        positive: np.ndarray | None,
    ) -> np.ndarray | None:
        if not _takes(gy, w) or not _can_join(gy, added, positive):
            return None
        how, low = _data_plan(tuple(x_shape), w.shape, stride, padding, dilation, groups, _fast(gy))
        if how != "winograd" and (how != "scattered" or groups != 1):
            return None
        gx = empty_channels_last(x_shape, gy.dtype)
        threads = _threads(gy, w)
        if how == "winograd":
            _winograd.data_grad(channels_last(gy), _whole(w), gx, low, threads, added, positive)
        else:
            arguments = channels_last(gy), _whole(w), None, gx, stride, low, dilation, groups, threads
            _direct_data.data_grad(*arguments, added, positive)
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
        w_shape = tuple(w_shape)
        how, low = _weight_plan(gy.shape, w_shape, stride, padding, dilation, groups, _fast(gy), _few(gy))
        if how == "product":
            return _gemm.multiply(_pixels(gy).T, _pixels(x), None).reshape(w_shape)
        gw = empty(w_shape, gy.dtype)
        threads = _threads(gy, gw)
        if how == "winograd":
            _winograd.weight_grad(channels_last(gy), channels_last(x), gw, low, threads)
        elif how == "spread":
            _spread.weight_grad(channels_last(gy), _source(x), gw, low, threads)
        elif how == "direct":
            _direct_weight.weight_grad(channels_last(gy), _source(x), gw, stride, low, dilation, groups, threads)
        else:
            _conv_weight.weight_grad(channels_last(gy), _source(x), gw, stride, low, dilation, groups, threads)
        return gw

    def conv_sums_behind_max_pool(
        self,
        gy: np.ndarray,
        index: np.ndarray,
        pool: Sequence[Sizes],
        x: np.ndarray,
        w_shape: Sizes,
        stride: Sizes,
        padding: Pairs,
        dilation: Sizes,
        groups: int,
        whole: bool,
    ) -> tuple[np.ndarray, np.ndarray] | None:
        if not _takes(gy, x) or index.dtype != np.uint8:
            return None
        y_shape, kernel, pool_stride, pool_padding, pool_dilation = pool
        how, low = _weight_plan(y_shape, w_shape, stride, padding, dilation, groups, _fast(gy), _few(gy))
        if how == "winograd" or any(pool_padding) or groups != 1 or max(dilation) > 1:
            return None
        geometry = stride, low, kernel, pool_stride, pool_dilation
        if not _suits_pooled(gy.shape, y_shape, w_shape, geometry, whole):
            return None
        gw, gb = empty(w_shape, gy.dtype), empty(w_shape[:1], gy.dtype)
        last = channels_last(gy), channels_last(index)
        _conv_pooled.weight_grad(*last, _source(x), gw, gb, *geometry, _threads(gy, gw))
        return gw, gb

    def conv_of_later(
        self,
        later: Later,
        w: np.ndarray,
        b: np.ndarray | None,
        stride: Sizes,
        padding: Pairs,
        dilation: Sizes,
        groups: int,
        relu: bool = False,
    ) -> np.ndarray | None:
        case = _by_images(later, w, stride, padding, dilation, groups)
        if case is None or (b is not None and b.dtype != later.dtype):
            return None
        x, before, y, low, threads = case
        _winograd_images.forward(x, before, _whole(w), _bias(b), y, low, relu, threads)
        return y

    def conv_with_moments(
        self,
        x: np.ndarray | Later,
        w: np.ndarray,
        stride: Sizes,
        padding: Pairs,
        dilation: Sizes,
        groups: int,
    ) -> tuple[np.ndarray, Moments] | None:
        case = _by_images(x, w, stride, padding, dilation, groups)
        if case is None:
            return None
        z, before, y, low, threads = case
        images = _winograd_images.images_of_sums(y)
        sums = np.empty((2, -(-len(y) // images), len(w)))
        _winograd_images.forward(z, before, _whole(w), None, y, low, False, threads, sums)
        return y, Moments(y, sums, images * math.prod(y.shape[2:]))

    def conv_gradients(
        self,
        gy: np.ndarray | LaterGradient,
        x: np.ndarray | Later,
        w: np.ndarray,
        stride: Sizes,
        padding: Pairs,
        dilation: Sizes,
        groups: int,
        added: np.ndarray | None = None,
        positive: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray] | None:
        behind = before = None
        g, z = gy, x
        if isinstance(gy, LaterNormGradient):
            g, behind = gy.gy, (gy.x, gy.mean, gy.factors, gy.relu)
        if isinstance(x, LaterNorm):
            z, before = x.x, x.affine()
        if not isinstance(g, np.ndarray) or not isinstance(z, np.ndarray) or not has_kernel(g, z, w) or w.ndim != 4:
            return None
        low = tuple([p[0] for p in padding])
        cold = behind is None and before is None
        if not _suits_images(z.shape, g.shape, w.shape, stride, low, dilation, groups, _fast(g), cold):
            return None
        if not _can_join(z, added, positive):
            return None
        gx, gw = empty_channels_last(z.shape, z.dtype), empty(w.shape, w.dtype)
        g, z = channels_last(g), channels_last(z)
        sums = None
        if isinstance(x, LaterNorm) and x.relu and added is None and positive is None:
            # The gradient of that batch norm comes next, and begins with sums over gx: they are made on the way.
            tiles = _winograd_images.sum_tiles(z, g)
            sums = np.empty((2, tiles, z.shape[1])) if tiles else None
        arrays = g, behind, z, before, _whole(w), gx, gw
        _winograd_images.backward(*arrays, low, _threads(g, gw), added, positive, sums)
        if isinstance(x, LaterNorm) and sums is not None:
            x.summed = gx, sums
        return gx, gw

    def channel_sum(self, gy: np.ndarray) -> np.ndarray:
        if not has_kernel(gy) or not 2 <= gy.ndim <= 5:
            return super().channel_sum(gy)  # type: ignore[misc]
        rows = nhwc(channels_last(gy))
        return column_sums(rows.reshape(gy.size // max(gy.shape[1], 1), gy.shape[1]))


@lru_cache(1024)
def _plan(
    x_shape: Sizes, w_shape: Sizes, stride: Sizes, padding: Pairs, dilation: Sizes, groups: int, fast: bool, few: int
) -> tuple[str, Sizes, int, Sizes]:
    """Of a forward pass: "product", "images" or what `_algorithm` says, the zeros at the low side of each axis, the
    number of multiplications, and the shape of y. Asked once for a layer, since a small one computes for less time."""
    low = tuple([p[0] for p in padding])
    y_shape = (x_shape[0], w_shape[0], *output_sizes(x_shape[2:], w_shape[2:], stride, padding, dilation))
    how = _algorithm(y_shape, w_shape, stride, low, dilation, groups, fast, few)
    how = "product" if _is_product(w_shape, stride, padding, groups) else how
    if how == "winograd" and _suits_images(x_shape, y_shape, w_shape, stride, low, dilation, groups, fast, True):
        how = "images"
    return how, low, math.prod(y_shape) * math.prod(w_shape[1:]), y_shape


@lru_cache(1024)
def _data_plan(
    x_shape: Sizes, w_shape: Sizes, stride: Sizes, padding: Pairs, dilation: Sizes, groups: int, fast: bool
) -> tuple[str, Sizes]:
    """Of a data gradient: "product" or what `_backward_algorithm` says, and the zeros at the low side."""
    low = tuple([p[0] for p in padding])
    how = _backward_algorithm(x_shape, w_shape, stride, low, dilation, groups, fast)
    return "product" if _is_product(w_shape, stride, padding, groups) else how, low


@lru_cache(1024)
def _weight_plan(
    gy_shape: Sizes, w_shape: Sizes, stride: Sizes, padding: Pairs, dilation: Sizes, groups: int, fast: bool, few: int
) -> tuple[str, Sizes]:
    """Of a weight gradient: "product" or what `_weight_algorithm` says, and the zeros at the low side."""
    low = tuple([p[0] for p in padding])
    how = _weight_algorithm(gy_shape, w_shape, stride, low, dilation, groups, fast, few)
    return "product" if _is_product(w_shape, stride, padding, groups) else how, low


def _algorithm(
    result: Sizes, w_shape: Sizes, stride: Sizes, low: Sizes, dilation: Sizes, groups: int, fast: bool, few: int = 0
) -> str:
    """What runs: "winograd", "spread", "direct" or "columns"; `result` is the shape of y, or for the weights of gy.

    few:  filters up to which lanes may be pixels times filters
    """
    if fast and _suits_winograd(result, w_shape, stride, low, dilation, groups):
        return "winograd"
    if w_shape[0] <= few and _suits_spread(result, w_shape, stride, low, dilation, groups):
        return "spread"
    return "direct" if _suits_direct(w_shape, dilation, groups) else "columns"


def _backward_algorithm(
    x_shape: Sizes, w_shape: Sizes, stride: Sizes, low: Sizes, dilation: Sizes, groups: int, fast: bool
) -> str:
    """What runs for the data gradient: "winograd", "turned", "scattered" or "columns".

    Without a stride, and if no padding is to be cut off, it is a convolution of gy with the filters turned around;
    otherwise ext/direct_data.pyx scatters gy, or gathers it for the pixels that meet the same taps: in one group or as
    many as there are channels.
    """
    how = _algorithm(x_shape, w_shape, stride, low, dilation, groups, fast)
    if how != "direct":
        return how
    if (
        max(stride) == 1
        and min(_border(w_shape, low, dilation)) >= 0
        and (groups > 1 or x_shape[1] >= _SCATTER_CHANNELS)
    ):
        return "turned"
    depthwise = groups == w_shape[0] == x_shape[1]
    return "scattered" if len(x_shape) < 5 and (groups == 1 or depthwise) else "columns"


def _weight_algorithm(
    gy_shape: Sizes, w_shape: Sizes, stride: Sizes, low: Sizes, dilation: Sizes, groups: int, fast: bool, few: int = 0
) -> str:
    """What runs for the weight gradient: as `_algorithm` says, but columns where there are many weights for few pixels,
    because the direct kernel's sums are in another order than the filters, and have to be copied."""
    how = _algorithm(gy_shape, w_shape, stride, low, dilation, groups, fast, few)
    weights, pixels = math.prod(w_shape), gy_shape[0] * math.prod(gy_shape[2:])
    many = groups == 1 and weights >= _MANY_WEIGHTS and weights > _WEIGHTS_PER_PIXEL * pixels
    return "columns" if how == "direct" and many else how


@lru_cache(1024)
def _are_squares(y_shape: Sizes, windows: tuple[Sizes, ...], ceil_mode: bool) -> bool:
    """Whether pooling takes squares of 2x2 beside each other, all of them whole."""
    return windows == ((2, 2), (2, 2), (0, 0), (1, 1)) and not (ceil_mode and any(n % 2 for n in y_shape[2:]))


@lru_cache(1024)
def _suits_pooled(pooled: Sizes, y_shape: Sizes, w_shape: Sizes, geometry: tuple[Sizes, ...], whole: bool) -> bool:
    """Whether sums over the pooled gradients are faster than those over the whole gradient, most of which is zero.

    whole:  the whole gradient is needed anyway, so that only the sums themselves are saved
    """
    under = math.prod(w_shape[1:])  # the numbers under a filter
    if len(w_shape) != 4 or not 0 < under or max(map(max, geometry)) > _POOLED_LARGEST:
        return False
    stride, _, kernel, pool_stride, pool_dilation = geometry
    spans = [(k - 1) * d * s + taps for k, d, s, taps in zip(kernel, pool_dilation, stride, w_shape[2:], strict=True)]
    band = spans[0] * (spans[1] + (pooled[3] - 1) * pool_stride[1] * stride[1]) * w_shape[1]
    return (
        band <= _POOLED_BAND
        and w_shape[1] <= _POOLED_CHANNELS
        and _POOLED_FEWER * math.prod(pooled[2:]) <= math.prod(y_shape[2:])
        and (not whole or _POOLED_UNDER <= under <= _POOLED_MOST)
    )


def _by_images(
    x: np.ndarray | Later, w: np.ndarray, stride: Sizes, padding: Pairs, dilation: Sizes, groups: int
) -> tuple[np.ndarray, tuple | None, np.ndarray, Sizes, int] | None:
    """Of a forward pass that goes image by image: the images, the batch norm still to be applied to them, memory
    for the result, the zeros at the low side and the threads; None where it does not."""
    z, before = (x.x, x.affine()) if isinstance(x, LaterNorm) else (x, None)
    if not isinstance(z, np.ndarray) or not _takes(z, w) or w.ndim != 4 or (z is not x and before is None):
        return None
    fast = _fast(z)
    _, low, work, y_shape = _plan(z.shape, w.shape, stride, padding, dilation, groups, fast, _few(z))
    if not _suits_images(z.shape, y_shape, w.shape, stride, low, dilation, groups, fast, z is x):
        return None
    return channels_last(z), before, empty_channels_last(y_shape, z.dtype), low, threads_for(work, 0.1)


@lru_cache(1024)
def _suits_images(
    x_shape: Sizes,
    y_shape: Sizes,
    w_shape: Sizes,
    stride: Sizes,
    low: Sizes,
    dilation: Sizes,
    groups: int,
    fast: bool,
    cold: bool,
) -> bool:
    """Whether Winograd's algorithm goes image by image, with weights that stay in the cache and images enough for all
    threads.

    cold:  False between batch norms, where it saves a pass over memory; otherwise images have to come from memory
    """
    if not fast or w_shape[0] * w_shape[1] > _IMAGE_WEIGHTS:
        return False
    if not all(_suits_winograd(a, w_shape, stride, low, dilation, groups) for a in (x_shape, y_shape)):
        return False
    image = 4 * max(math.prod(x_shape[1:]), math.prod(y_shape[1:]))
    tiles = y_shape[0] * math.prod([-(-n // 4) for n in y_shape[2:]])
    if cold:
        size = 4 * (math.prod(x_shape) + math.prod(y_shape))
        return x_shape[0] >= _COLD_IMAGES and tiles >= _COLD_TILES and size >= _COLD_BYTES
    return image <= _IMAGE_BYTES and tiles >= _IMAGE_TILES


def _can_join(like: np.ndarray, *others: np.ndarray | None) -> bool:
    """Whether a kernel reads these beside a result of the type of `like`: channels-last as it is."""
    return all([a is None or (has_kernel(like, a) and is_channels_last(a)) for a in others])


def _border(w_shape: Sizes, low: Sizes, dilation: Sizes) -> Sizes:
    """The zeros at the low side of gy where it is convolved with the filters turned around."""
    return tuple([d * (k - 1) - p for k, d, p in zip(w_shape[2:], dilation, low, strict=True)])


def _suits_winograd(result: Sizes, w_shape: Sizes, stride: Sizes, low: Sizes, dilation: Sizes, groups: int) -> bool:
    return (
        w_shape[2:] == (3, 3)
        and stride == (1, 1)
        and dilation == (1, 1)
        and groups == 1
        and w_shape[0] >= _WINOGRAD_CHANNELS
        and w_shape[1] >= _WINOGRAD_CHANNELS
        and result[0] * result[2] * result[3] >= _winograd_pixels(w_shape[0] * w_shape[1])
        and max(low) <= 2
    )


def _suits_spread(result: Sizes, w_shape: Sizes, stride: Sizes, low: Sizes, dilation: Sizes, groups: int) -> bool:
    return (
        len(w_shape) == 4
        and w_shape[2] in _SPREAD_ROWS
        and stride == (1, 1)
        and dilation == (1, 1)
        and groups == 1
        and low[0] < w_shape[2]
        and low[1] < w_shape[3]
        and (8 + w_shape[2]) * math.prod(w_shape[:2]) * (result[3] + 2 * w_shape[3]) <= _SPREAD_NUMBERS
    )


def _winograd_pixels(filters: int) -> int:
    """Below so many pixels, transforming the filters costs more than the product."""
    return max(_WINOGRAD_PIXELS, min(filters // 128, 640))


def _suits_direct(w_shape: Sizes, dilation: Sizes, groups: int) -> bool:
    taps, reach = math.prod(w_shape[2:]), max(d * (k - 1) for k, d in zip(w_shape[2:], dilation, strict=True))
    return (
        reach < _DIRECT_REACH
        and (taps <= _DIRECT_TAPS or (groups == 1 and dilation[-1] == 1))
        and w_shape[0] * w_shape[1] * taps <= _DIRECT_WEIGHTS
    )


def _turned(w: np.ndarray, groups: int) -> np.ndarray:
    """Filters (F, C / G, taps) as (C, F / G, taps), the taps backwards."""
    if groups > 1:
        f, c = w.shape[:2]
        w = w.reshape(groups, f // groups, c, *w.shape[2:]).swapaxes(1, 2)
        w = w.reshape(groups * c, f // groups, *w.shape[3:])
    else:
        w = w.swapaxes(0, 1)
    return w[(slice(None), slice(None), *(slice(None, None, -1) for _ in w.shape[2:]))]


def _fast(x: np.ndarray) -> bool:
    """Whether Winograd's algorithm may run: float32 and not float64, and nobody has asked for direct summation."""
    return x.itemsize == 4 and precision.get_conv_precision() == "default"


def _few(x: np.ndarray) -> int:
    return _spread.most_filters(x.itemsize)


def _is_product(w_shape: Sizes, stride: Sizes, padding: Pairs, groups: int) -> bool:
    """Whether it is one product of matrices, pixels by channels: many filters of one tap, nothing left out or added."""
    return (
        w_shape[0] * w_shape[1] >= _PRODUCT_WEIGHTS
        and groups == 1
        and math.prod(w_shape[2:]) == 1
        and max(stride) == 1
        and not any(map(any, padding))
    )


def _pixels(x: np.ndarray) -> np.ndarray:
    """(N, C, spatial...) as a matrix with a row for each pixel; copied only if it is not channels-last."""
    return nhwc(channels_last(x)).reshape(x.size // max(x.shape[1], 1), x.shape[1])


def _matrix(w: np.ndarray) -> np.ndarray:
    """Filters of one tap as a matrix (F, C)."""
    return w.reshape(w.shape[0], w.shape[1])


def _images(rows: np.ndarray, shape: Sizes) -> np.ndarray:
    """A matrix with a row for each pixel as (N, C, spatial...), channels-last in memory."""
    return nchw(rows.reshape(shape[0], *shape[2:], shape[1]))


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
    return w if w.flags.c_contiguous or not any([s % w.itemsize for s in w.strides]) else w.copy()


def _bias(b: np.ndarray | None) -> Any:
    return b if b is None or (b.flags.c_contiguous and b.flags.aligned) else np.ascontiguousarray(b)
