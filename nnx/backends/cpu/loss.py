"""Losses with the compiled kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nnx._ext import loss as _loss
from nnx._ext.memory import empty_like
from nnx.backends.base.loss import LossOps
from nnx.backends.cpu._arrays import dense, has_kernel, like, threads_for


class LossKernels(LossOps):
    """Overrides for float32 and float64."""

    def squared_error(self, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        if not has_kernel(x, t):
            return super().squared_error(x, t)
        return _forward(_loss.squared_error, x, t, 1)

    def squared_error_backward(self, gy: np.ndarray, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        if not has_kernel(x, t):
            return super().squared_error_backward(gy, x, t)
        return _backward(_loss.squared_error_backward, gy, x, t, 1)

    def absolute_error(self, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        if not has_kernel(x, t):
            return super().absolute_error(x, t)
        return _forward(_loss.absolute_error, x, t, 1)

    def absolute_error_backward(self, gy: np.ndarray, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        if not has_kernel(x, t):
            return super().absolute_error_backward(gy, x, t)
        return _backward(_loss.absolute_error_backward, gy, x, t, 1)

    def huber(self, x: np.ndarray, t: np.ndarray, delta: float) -> np.ndarray:
        if not has_kernel(x, t):
            return super().huber(x, t, delta)
        return _forward(_loss.huber, x, t, 1, delta)

    def huber_backward(self, gy: np.ndarray, x: np.ndarray, t: np.ndarray, delta: float) -> np.ndarray:
        if not has_kernel(x, t):
            return super().huber_backward(gy, x, t, delta)
        return _backward(_loss.huber_backward, gy, x, t, 1, delta)

    def bce_with_logits(self, x: np.ndarray, t: np.ndarray, pos_weight: np.ndarray | None) -> np.ndarray:
        if pos_weight is not None or not has_kernel(x, t):
            return super().bce_with_logits(x, t, pos_weight)
        return _forward(_loss.bce_with_logits, x, t, 8)

    def bce_with_logits_backward(
        self,
        gy: np.ndarray,
        x: np.ndarray,
        t: np.ndarray,
        pos_weight: np.ndarray | None,
        needs: tuple[bool, bool],
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        if pos_weight is not None or needs[1] or not has_kernel(x, t):
            return super().bce_with_logits_backward(gy, x, t, pos_weight, needs)
        return _backward(_loss.bce_with_logits_backward, gy, x, t, 6), None

    # -- over rows of class scores -------------------------------------------------------------

    def softmax_cross_entropy(
        self, x: np.ndarray, labels: np.ndarray, smoothing: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if not has_kernel(x) or not _is_int64(labels):
            return super().softmax_cross_entropy(x, labels, smoothing)
        x, labels = np.ascontiguousarray(x), np.ascontiguousarray(labels)
        loss, top, total = (np.empty(len(x), x.dtype) for _ in range(3))
        _loss.cross_entropy(x, labels, loss, top, total, smoothing, threads_for(x.size, 5))
        return loss, top, total

    def softmax_cross_entropy_backward(
        self,
        gy: np.ndarray,
        x: np.ndarray,
        labels: np.ndarray,
        smoothing: float,
        top: np.ndarray,
        total: np.ndarray,
    ) -> np.ndarray:
        if not has_kernel(x, gy, top, total) or not _is_int64(labels):
            return super().softmax_cross_entropy_backward(gy, x, labels, smoothing, top, total)
        x, labels, gy = (np.ascontiguousarray(a) for a in (x, labels, gy))
        gx = empty_like(x)
        threads = threads_for(x.size, 6)
        _loss.cross_entropy_backward(gy, x, labels, top, total, gx, smoothing, threads)
        return gx


def _is_int64(labels: np.ndarray) -> bool:
    return labels.dtype == np.int64 and labels.dtype.isnative and labels.flags.aligned


def _forward(kernel: Callable[..., None], x: np.ndarray, t: np.ndarray, cost: float, *parameters: Any) -> np.ndarray:
    x = dense(x)
    y = empty_like(x)
    kernel(x, like(t, x), y, *parameters, threads_for(x.size, cost))
    return y


def _backward(
    kernel: Callable[..., None],
    gy: np.ndarray,
    x: np.ndarray,
    t: np.ndarray,
    cost: float,
    *parameters: Any,
) -> np.ndarray:
    """A kernel multiplies by one number, which is all there is behind a mean or a sum."""
    x = dense(x)
    gx = empty_like(x)
    one = gy.size == 1
    factor = float(gy.reshape(-1)[0]) if one else 1.0
    kernel(x, like(t, x), gx, factor, *parameters, threads_for(x.size, cost))
    if not one:
        gx *= gy
    return gx
