"""Normalisation by ext/norm.pyx and ext/local_response.pyx: images channels-last in memory, rows one behind the
other."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx._ext import local_response as _local_response
from nnx._ext import norm as _norm
from nnx._ext.memory import empty_like
from nnx.backends.base.later import Moments
from nnx.backends.base.norm import Gradients, NormOps
from nnx.backends.cpu._arrays import (
    channels_last,
    empty_channels_last,
    empty_per_channel,
    has_kernel,
    is_channels_last,
    nhwc,
    takes_images,
    threads_for,
)


class LaterNorm:
    """Batch norm whose statistics are there, and whose result is written together with a sum or a ReLU that follows
    (`nnx.backends.base.later`)."""

    __slots__ = (
        "added",
        "bias",
        "dtype",
        "eps",
        "mean",
        "relu",
        "result",
        "rstd",
        "shape",
        "summed",
        "var",
        "weight",
        "x",
    )

    def __init__(
        self,
        x: np.ndarray,
        mean: np.ndarray,
        var: np.ndarray,
        rstd: np.ndarray,
        weight: np.ndarray | None,
        bias: np.ndarray | None,
        eps: float,
        added: np.ndarray | None = None,
        relu: bool = False,
    ) -> None:
        self.x = x  # channels-last
        self.shape = x.shape
        self.dtype = x.dtype
        self.mean = mean
        self.var = var
        self.rstd = rstd
        self.weight = weight
        self.bias = bias
        self.eps = eps
        self.added = added
        self.relu = relu
        self.result: np.ndarray | None = None  # of the positive part, once it was computed: its gradient needs it again
        # the gradient that a convolution of it gave, and the sums over it that its own gradient is made of
        self.summed: tuple[np.ndarray, np.ndarray] | None = None

    def array(self, relu: bool = False) -> np.ndarray:
        if self.result is not None:
            return self.result
        added = None if self.added is None else nhwc(self.added)
        arguments = self.x, self.mean, self.var, self.weight, self.bias, empty_like(self.rstd), self.eps
        y = _normalized(*arguments, relu or self.relu, added)
        if self.relu:
            self.result = y
        return y

    def plus(self, other: np.ndarray) -> LaterNorm | None:
        if self.added is not None or self.relu or self.bias is None or not is_channels_last(other):
            return None
        return self._with(other, False)

    def positive(self) -> LaterNorm | None:
        if self.added is not None or self.relu or self.bias is None or self.x.ndim != 4 or self.dtype != np.float32:
            return None
        return self._with(None, True)

    def _with(self, added: np.ndarray | None, relu: bool) -> LaterNorm:
        return LaterNorm(self.x, self.mean, self.var, self.rstd, self.weight, self.bias, self.eps, added, relu)

    def affine(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool] | None:
        """(mean, scale, shift, relu) where that is all there is to do; otherwise None."""
        if self.added is not None or self.bias is None:
            return None
        return self.mean, self.rstd if self.weight is None else self.rstd * self.weight, self.bias, self.relu


class LaterNormGradient:
    """The gradient of batch norm's input, from the sums over the batch (`nnx.backends.base.later`).

    gy, x:    channels-last
    factors:  (4, C), as ext/norm.pyx leaves them
    relu:     whether gy is behind a ReLU
    """

    __slots__ = ("factors", "gy", "mean", "relu", "x")

    def __init__(self, gy: np.ndarray, x: np.ndarray, mean: np.ndarray, factors: np.ndarray, relu: bool) -> None:
        self.gy = gy
        self.x = x
        self.mean = mean
        self.factors = factors
        self.relu = relu

    def array(self) -> np.ndarray:
        gx, threads = empty_like(self.x), threads_for(self.x.size)
        _norm.apply_gradient(nhwc(self.gy), nhwc(self.x), nhwc(gx), self.mean, self.factors, self.relu, threads)
        return gx


class NormKernels(NormOps):
    """Overrides for float32 and float64 with at least one element."""

    # -- per channel: batch norm -------------------------------------------------------------------

    def batch_moments(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not takes_images(x):
            return super().batch_moments(x)
        mean, var = empty_per_channel(x, 2)
        _norm.moments(nhwc(channels_last(x)), mean, var, threads_for(x.size, 2))
        return mean, var

    def batch_norm(
        self, x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, eps: float, relu: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        if not takes_images(x, weight, bias):
            return super().batch_norm(x, weight, bias, eps, relu)
        x = channels_last(x)
        mean, var, rstd = empty_per_channel(x, 3)
        _norm.moments(nhwc(x), mean, var, threads_for(x.size, 2))
        return _normalized(x, mean, var, weight, bias, rstd, eps, relu), mean, var, rstd

    def batch_norm_later(
        self,
        x: np.ndarray,
        weight: np.ndarray | None,
        bias: np.ndarray | None,
        eps: float,
        moments: Moments | None = None,
    ) -> LaterNorm | None:
        if not takes_images(x, weight, bias):
            return None
        if moments is not None and moments.of is not x:
            moments = None
        x = channels_last(x)
        mean, var, rstd = empty_per_channel(x, 3)
        if moments is not None:
            _norm.moments_of_sums(moments.sums, moments.height, x.size // len(mean), mean, var, rstd, eps)
        else:
            _norm.moments(nhwc(x), mean, var, threads_for(x.size, 2), rstd, eps)
        return LaterNorm(x, mean, var, rstd, _contiguous(weight), _contiguous(bias), eps)

    def batch_norm_track(
        self,
        running_mean: np.ndarray | None,
        running_var: np.ndarray | None,
        mean: np.ndarray,
        var: np.ndarray,
        momentum: float,
        correction: float,
    ) -> None:
        moved = [a for a in (running_mean, running_var) if a is not None]
        if has_kernel(mean, var, *moved) and all([a.flags.c_contiguous for a in moved]):
            mean, var = _contiguous(mean), _contiguous(var)
            _norm.track(running_mean, running_var, mean, var, momentum, correction)
        else:
            super().batch_norm_track(running_mean, running_var, mean, var, momentum, correction)

    def batch_norm_backward(
        self,
        gy: np.ndarray,
        x: np.ndarray,
        weight: np.ndarray | None,
        mean: np.ndarray,
        rstd: np.ndarray,
        needs: tuple[bool, bool, bool],
        y: np.ndarray | None = None,
        bias: np.ndarray | None = None,
    ) -> Gradients:
        if not takes_images(x, gy, weight, mean, rstd, bias):
            return super().batch_norm_backward(gy, x, weight, mean, rstd, needs, y, bias)
        if y is not None and bias is None:
            gy, y = self.relu_backward(gy, y), None
        # With a bias, where y is positive is worked out again: that takes less time than reading y.
        return _channel_gradients(gy, x, mean, rstd, weight, True, needs, y is not None, bias)

    def batch_norm_backward_later(
        self,
        gy: np.ndarray,
        x: np.ndarray,
        weight: np.ndarray | None,
        mean: np.ndarray,
        rstd: np.ndarray,
        y: np.ndarray | None = None,
        bias: np.ndarray | None = None,
    ) -> tuple[LaterNormGradient, np.ndarray, np.ndarray] | None:
        relu, given = y is not None, gy
        if (relu and bias is None) or not takes_images(x, gy, weight, mean, rstd, bias):
            return None
        gy, x, mean, rstd = channels_last(gy), channels_last(x), _contiguous(mean), _contiguous(rstd)
        (gw, gb), factors = empty_per_channel(x, 2), np.empty((4, x.shape[1]), x.dtype)
        sums = None
        if isinstance(y, LaterNorm) and y.summed is not None:
            sums = y.summed[1] if y.summed[0] is given and y.x is x else None
            y.summed = None
        parameters = _contiguous(weight), gw, gb, True, threads_for(x.size, 3), relu, _contiguous(bias), factors, sums
        _norm.normalize_backward(nhwc(gy), nhwc(x), None, mean, rstd, *parameters)
        return LaterNormGradient(gy, x, mean, factors, relu), gw, gb

    def batch_norm_infer(
        self,
        x: np.ndarray,
        mean: np.ndarray,
        var: np.ndarray,
        weight: np.ndarray | None,
        bias: np.ndarray | None,
        eps: float,
        relu: bool = False,
    ) -> np.ndarray:
        if not takes_images(x, mean, var, weight, bias):
            return super().batch_norm_infer(x, mean, var, weight, bias, eps, relu)
        mean, var = np.ascontiguousarray(mean), np.ascontiguousarray(var)
        return _normalized(channels_last(x), mean, var, weight, bias, empty_like(var), eps, relu)

    def batch_norm_infer_backward(
        self,
        gy: np.ndarray,
        x: np.ndarray,
        mean: np.ndarray,
        var: np.ndarray,
        weight: np.ndarray | None,
        eps: float,
        needs: tuple[bool, bool, bool],
    ) -> Gradients:
        if not takes_images(x, gy, mean, var, weight):
            return super().batch_norm_infer_backward(gy, x, mean, var, weight, eps, needs)
        with np.errstate(all="ignore"):
            rstd = 1 / np.sqrt(var + eps)
        return _channel_gradients(gy, x, mean, rstd, weight, False, needs)

    # -- per row: layer, group and instance norm ---------------------------------------------------

    def row_norm(
        self, x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, eps: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        if not _takes(x, weight, bias):
            return super().row_norm(x, weight, bias, eps)
        x = np.ascontiguousarray(x)
        y = empty_like(x)
        mean, var, rstd = np.empty((3, x.shape[0]), x.dtype)
        weight, bias = _contiguous(weight), _contiguous(bias)
        _norm.row_norm(x, y, weight, bias, mean, var, rstd, eps, threads_for(x.size, 4))
        return y, mean, var, rstd

    def row_norm_backward(
        self,
        gy: np.ndarray,
        x: np.ndarray,
        weight: np.ndarray | None,
        mean: np.ndarray,
        rstd: np.ndarray,
        period: int,
        needs: tuple[bool, bool, bool],
    ) -> Gradients:
        if not _takes(x, gy, weight, mean, rstd):
            return super().row_norm_backward(gy, x, weight, mean, rstd, period, needs)
        x, gy = np.ascontiguousarray(x), np.ascontiguousarray(gy)
        shape = (period, x.shape[1])
        gx = empty_like(x) if needs[0] else None
        gw = np.empty(shape, x.dtype) if needs[1] else None
        gb = np.empty(shape, x.dtype) if needs[2] else None
        threads = threads_for(x.size, 4)
        weight, mean, rstd = _contiguous(weight), _contiguous(mean), _contiguous(rstd)
        _norm.row_norm_backward(gy, x, gx, weight, mean, rstd, gw, gb, period, threads)
        return gx, gw, gb

    # -- across channels: local response norm ------------------------------------------------------

    def local_response_norm(
        self, x: np.ndarray, size: int, alpha: float, beta: float, k: float
    ) -> tuple[np.ndarray, np.ndarray]:
        if not takes_images(x) or size // 2 > _local_response.REACH:
            return super().local_response_norm(x, size, alpha, beta, k)
        y, scale = empty_channels_last(x.shape, x.dtype), empty_channels_last(x.shape, x.dtype)
        window = size // 2, (size - 1) // 2
        threads = threads_for(x.size, 8)
        image = nhwc(channels_last(x))
        _local_response.response(image, nhwc(y), nhwc(scale), *window, alpha / size, beta, k, threads)
        return y, scale

    def local_response_norm_backward(
        self, gy: np.ndarray, x: np.ndarray, scale: np.ndarray, size: int, alpha: float, beta: float
    ) -> np.ndarray:
        if not takes_images(x, gy, scale) or size // 2 > _local_response.REACH:
            return super().local_response_norm_backward(gy, x, scale, size, alpha, beta)
        gx = empty_channels_last(x.shape, x.dtype)
        _local_response.response_backward(
            nhwc(channels_last(gy)),
            nhwc(channels_last(x)),
            nhwc(channels_last(scale)),
            nhwc(gx),
            (size - 1) // 2,
            size // 2,
            2 * alpha * beta / size,
            beta,
            threads_for(x.size, 8),
        )
        return gx


def _takes(x: np.ndarray, *others: np.ndarray | None) -> bool:
    return x.size > 0 and has_kernel(x, *[a for a in others if a is not None])


def _contiguous(a: np.ndarray | None) -> Any:
    return a if a is None or a.flags.c_contiguous else np.ascontiguousarray(a)


def _normalized(
    x: np.ndarray,
    mean: np.ndarray,
    var: np.ndarray,
    weight: np.ndarray | None,
    bias: np.ndarray | None,
    rstd: np.ndarray,
    eps: float,
    relu: bool,
    added: np.ndarray | None = None,
) -> np.ndarray:
    """Fills rstd and returns the result; x is channels-last, `added` the view that kernels take."""
    y = empty_channels_last(x.shape, x.dtype)
    weight, bias = _contiguous(weight), _contiguous(bias)
    _norm.normalize(nhwc(x), nhwc(y), mean, var, weight, bias, rstd, eps, relu, threads_for(x.size), added)
    return y


def _channel_gradients(
    gy: np.ndarray,
    x: np.ndarray,
    mean: np.ndarray,
    rstd: np.ndarray,
    weight: np.ndarray | None,
    from_batch: bool,
    needs: tuple[bool, bool, bool],
    relu: bool = False,
    bias: np.ndarray | None = None,
) -> Gradients:
    channels = x.shape[1]
    gx = empty_channels_last(x.shape, x.dtype) if needs[0] else None
    gw = np.empty(channels, x.dtype) if needs[1] else None
    gb = np.empty(channels, x.dtype) if needs[2] else None
    _norm.normalize_backward(
        nhwc(channels_last(gy)),
        nhwc(channels_last(x)),
        None if gx is None else nhwc(gx),
        np.ascontiguousarray(mean),
        np.ascontiguousarray(rstd),
        _contiguous(weight),
        gw,
        gb,
        from_batch,
        threads_for(x.size, 3),
        relu,
        _contiguous(bias),
    )
    return gx, gw, gb
