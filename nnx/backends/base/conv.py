"""Convolution in plain NumPy, by way of one matrix product.

A filter is laid over the input at every output position and multiplied with what lies under it.
`im2col` writes what lies under the filter as a column, one column per position; all filters at all
positions are then one matrix product:

    y        =  w          @  im2col(x)          (K, O)   = (K, C F) (C F, O)
    gx       =  col2im(w^T @ gy)                 (C F, O) = (C F, K) (K, O)
    gw       =  gy         @  im2col(x)^T        (K, C F) = (K, O)   (O, C F)

Letters: N images, C input channels, K filters (output channels), F positions inside the filter
("taps"), O output positions, G groups. There may be one, two or three spatial dimensions. As
everywhere in neural networks the filter is not flipped: this is what signal processing calls
cross-correlation.

Geometry, one entry per spatial dimension: `stride` and `dilation` are ints, `padding` is a pair
(low, high) of numbers of zeros, before the first and behind the last element.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnx.backends.base.later import Later, LaterGradient, Moments

Sizes = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]

_quiet = np.errstate(all="ignore")  # NaN and infinity pass through without a warning


class ConvOps:
    """Convolution, its two gradients, and the column matrices that they are made of."""

    xp: Any
    matmul: Any
    max_pool: Any
    relu: Any
    pad: Any

    @_quiet
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
        """``y[n, k, o] = b[k] + sum over c, f of w[k, c, f] * x[n, c, i]``, cross-correlation, with
        ``i = o * stride + f * dilation - low``.

        With G groups the channels and the filters are cut into G equal parts, and part g of the
        filters sees part g of the channels only. With `relu` the result is the positive part of y.

        Shapes: x (N, C, spatial...), w (K, C / G, kernel...), b (K,) or None; y (N, K, spatial...).
        """
        out = output_sizes(x.shape[2:], w.shape[2:], stride, padding, dilation)
        columns = self.im2col(x, w.shape[2:], stride, padding, dilation)  # (N, C F, O)
        columns = _grouped(columns, groups)  # (N, G, C/G F, O)
        y = self.matmul(_filters(w, groups), columns)  # (N, G, K/G, O)
        y = y.reshape(len(x), len(w), *out)
        if b is not None:
            y += b.reshape(-1, *(1,) * len(out))
        return self.relu(y) if relu else y

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
        """The gradient of `conv` with respect to x.

        ``gx[n, c, o * stride + f * dilation - low] += w[k, c, f] * gy[n, k, o]`` over all k, f, o:
        each output's gradient goes back to the inputs it was made of. It is the adjoint of `conv`,
        ``<conv(x), gy> = <x, gx>``, and the forward pass of a transposed convolution.
        """
        n, k = gy.shape[:2]
        taps = _filters(w, groups).swapaxes(1, 2)  # (G, C/G F, K/G)
        columns = self.matmul(taps, _grouped(gy.reshape(n, k, math.prod(gy.shape[2:])), groups))
        columns = columns.reshape(n, math.prod(columns.shape[1:3]), columns.shape[3])  # (N, C F, O)
        return self.col2im(columns, x_shape, w.shape[2:], stride, padding, dilation)

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
        """`conv_data_grad` plus the array `added`, and 0 where `positive` is not positive, with the bits of one after
        the other; None where the backend does not offer it in one pass. Either array may be None."""
        return None

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
        """The gradient of `conv` with respect to w.

        ``gw[k, c, f] = sum over n, o of gy[n, k, o] * x[n, c, o * stride + f * dilation - low]``.
        """
        n, k = gy.shape[:2]
        columns = self.windows(x, w_shape[2:], stride, padding, dilation)
        positions = n * math.prod(gy.shape[2:])
        # The sum runs over images and positions: together they are the inner dimension of one
        # product per group.
        columns = self.xp.moveaxis(columns, 0, len(w_shape) - 1)  # (C, kernel..., N, out...)
        columns = columns.reshape(groups, math.prod(w_shape[1:]), positions)
        g = self.xp.moveaxis(gy, 0, 1).reshape(groups, k // groups, positions)
        return self.matmul(g, columns.swapaxes(1, 2)).reshape(w_shape)

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
        """`max_pool` of the positive part of `conv`: (y, index), with the same bits.

        windows:  kernel, stride, padding and dilation of the pooling
        """
        y = self.conv(x, w, b, stride, padding, dilation, groups, True)
        return self.max_pool(y, *windows, ceil_mode, True)

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
        """The gradients of the weights and the bias of `conv` from that of a `max_pool` of its result.

        The same sums as in `conv_weight_grad` and `channel_sum` of `max_pool_backward`, without the numbers that are
        zero: another order of additions, but no less exact; and what is infinite or NaN in x counts only under a
        maximum, where otherwise zero times that is NaN. None where the backend does not offer it.

        gy, index, pool:  arguments of `max_pool_backward`
        whole:            whether the gradient of the whole result is computed anyway, for that of x
        """
        return None

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
        """`conv` of images that nobody has computed yet, and which are not kept; None where that is not offered."""
        return None

    def conv_with_moments(
        self,
        x: np.ndarray | Later,
        w: np.ndarray,
        stride: Sizes,
        padding: Pairs,
        dilation: Sizes,
        groups: int,
    ) -> tuple[np.ndarray, Moments] | None:
        """`conv` without a bias, as it stands in front of a batch norm, and what `batch_norm_later` needs to know about
        its result; None where the two are not faster together."""
        return None

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
        """`conv_data_grad`, or `conv_data_grad_joined`, and `conv_weight_grad` at once; None where the backend does not
        offer it. A gy or x that is there later is computed on the way, and never lies in memory as a whole.
        """
        return None

    @_quiet
    def channel_sum(self, gy: np.ndarray) -> np.ndarray:
        """The gradient of a bias: gy (N, K, spatial...) summed over all but the channels, (K,)."""
        return gy.sum(axis=(0, *range(2, gy.ndim)))

    # -- columns -------------------------------------------------------------------------------

    def windows(self, x: np.ndarray, kernel: Sizes, stride: Sizes, padding: Pairs, dilation: Sizes) -> np.ndarray:
        """A view ``v[n, c, f, o] = x[n, c, o * stride + f * dilation - low]``, only to be read.

        Its shape is (N, C, kernel..., out...). Steps through memory do all the work: along f one
        steps `dilation` elements, along o `stride` elements, and the same element appears in many
        windows.
        """
        if any(map(any, padding)):
            x = self.pad(x, ((0, 0), (0, 0), *padding), "constant", 0)
        none = ((0, 0),) * len(kernel)
        out = output_sizes(x.shape[2:], kernel, stride, none, dilation)
        steps = x.strides[2:]
        along_f = tuple(step * d for step, d in zip(steps, dilation, strict=True))
        along_o = tuple(step * s for step, s in zip(steps, stride, strict=True))
        return self.xp.lib.stride_tricks.as_strided(
            x, (*x.shape[:2], *kernel, *out), (*x.strides[:2], *along_f, *along_o)
        )

    def im2col(self, x: np.ndarray, kernel: Sizes, stride: Sizes, padding: Pairs, dilation: Sizes) -> np.ndarray:
        """What lies under the filter at each position: (N, C, spatial...) to (N, C F, O)."""
        v = self.windows(x, kernel, stride, padding, dilation)
        split = 2 + len(kernel)
        return v.reshape(len(v), math.prod(v.shape[1:split]), math.prod(v.shape[split:]))

    @_quiet
    def col2im(
        self,
        columns: np.ndarray,
        x_shape: Sizes,
        kernel: Sizes,
        stride: Sizes,
        padding: Pairs,
        dilation: Sizes,
    ) -> np.ndarray:
        """The adjoint of `im2col`: each element of a column is added where it was read.

        (N, C F, O) to `x_shape`.
        """
        out = output_sizes(x_shape[2:], kernel, stride, padding, dilation)
        columns = columns.reshape(*x_shape[:2], *kernel, *out)
        padded = tuple(n + low + high for n, (low, high) in zip(x_shape[2:], padding, strict=True))
        x = self.xp.zeros((*x_shape[:2], *padded), columns.dtype)
        for f in np.ndindex(*kernel):
            # One tap touches an element at most once: += is safe. Only different taps overlap.
            x[:, :, *tap(f, stride, dilation, out)] += columns[:, :, *f]
        inside = tuple(slice(low, low + n) for n, (low, _) in zip(x_shape[2:], padding, strict=True))
        return x[:, :, *inside]


def output_sizes(sizes: Sizes, kernel: Sizes, stride: Sizes, padding: Pairs, dilation: Sizes) -> Sizes:
    """``floor((size + low + high - dilation (kernel - 1) - 1) / stride) + 1`` along each axis."""
    return tuple(
        (n + low + high - d * (k - 1) - 1) // s + 1
        for n, k, s, (low, high), d in zip(sizes, kernel, stride, padding, dilation, strict=True)
    )


def tap(f: Sizes, stride: Sizes, dilation: Sizes, out: Sizes) -> tuple[slice, ...]:
    """Where tap f of the filter reads the padded input: ``o * stride + f * dilation``, all o."""
    return tuple(slice(i * d, i * d + s * (o - 1) + 1, s) for i, s, d, o in zip(f, stride, dilation, out, strict=True))


def _filters(w: np.ndarray, groups: int) -> np.ndarray:
    """(K, C/G, kernel...) as one matrix per group: (G, K/G, C/G F)."""
    return w.reshape(groups, len(w) // groups, math.prod(w.shape[1:]))


def _grouped(columns: np.ndarray, groups: int) -> np.ndarray:
    """(N, rows, O) as (N, G, rows/G, O)."""
    n, rows, positions = columns.shape
    return columns.reshape(n, groups, rows // groups, positions)
