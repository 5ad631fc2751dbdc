"""Losses by loss.cu: one launch each; those of elements in any dense layout, which the result keeps.

A class label out of range cannot raise here: its loss and its row of the gradient are NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx.backends.base.loss import LossOps
from nnx.backends.cuda._arrays import contiguous, dense, has_kernel, like
from nnx.backends.cuda._kernels import Kernels, blocks_for
from nnx.backends.cuda.embedding import group_for

_CHUNK = 8192  # rows that a block adds, at least
_MOST_CHUNKS = 256
_k = Kernels("loss")
_f32 = np.dtype(np.float32)
_i64 = np.dtype(np.int64)

Needs = tuple[bool, bool]
Pair = tuple[Any, Any]


class LossCUDA(LossOps):
    """Overrides for float32 and float64."""

    xp: Any

    def squared_error(self, x: Any, t: Any) -> Any:
        if not has_kernel(x, t):
            return super().squared_error(x, t)
        return self._forward("squared_error", x, t)

    def squared_error_backward(self, gy: Any, x: Any, t: Any) -> Any:
        if not has_kernel(x, t, gy):
            return super().squared_error_backward(gy, x, t)
        return self._backward("squared_error_backward", gy, x, t)

    def absolute_error(self, x: Any, t: Any) -> Any:
        if not has_kernel(x, t):
            return super().absolute_error(x, t)
        return self._forward("absolute_error", x, t)

    def absolute_error_backward(self, gy: Any, x: Any, t: Any) -> Any:
        if not has_kernel(x, t, gy):
            return super().absolute_error_backward(gy, x, t)
        return self._backward("absolute_error_backward", gy, x, t)

    def huber(self, x: Any, t: Any, delta: float) -> Any:
        if not has_kernel(x, t):
            return super().huber(x, t, delta)
        return self._forward("huber", x, t, last=(float(delta),))

    def huber_backward(self, gy: Any, x: Any, t: Any, delta: float) -> Any:
        if not has_kernel(x, t, gy):
            return super().huber_backward(gy, x, t, delta)
        return self._backward("huber_backward", gy, x, t, last=(float(delta),))

    def bce(self, x: Any, t: Any) -> Any:
        if not has_kernel(x, t):
            return super().bce(x, t)
        return self._forward("bce", x, t)

    def bce_backward(self, gy: Any, x: Any, t: Any, needs: Needs) -> Pair:
        if not has_kernel(x, t, gy):
            return super().bce_backward(gy, x, t, needs)
        return self._both("bce_backward", needs, gy, x, t)

    def bce_with_logits(self, x: Any, t: Any, pos_weight: Any) -> Any:
        if not has_kernel(x, t):
            return super().bce_with_logits(x, t, pos_weight)
        x = dense(x)
        return self._forward("bce_with_logits", x, t, (self._spread(pos_weight, x),))

    def bce_with_logits_backward(self, gy: Any, x: Any, t: Any, pos_weight: Any, needs: Needs) -> Pair:
        if not has_kernel(x, t, gy):
            return super().bce_with_logits_backward(gy, x, t, pos_weight, needs)
        x = dense(x)
        return self._both("bce_with_logits_backward", needs, gy, x, t, (self._spread(pos_weight, x),))

    def kl(self, x: Any, t: Any, log_target: bool) -> Any:
        if not has_kernel(x, t):
            return super().kl(x, t, log_target)
        return self._forward("kl", x, t, last=(int(log_target),))

    def kl_backward(self, gy: Any, x: Any, t: Any, log_target: bool, needs: Needs) -> Pair:
        if not has_kernel(x, t, gy):
            return super().kl_backward(gy, x, t, log_target, needs)
        return self._both("kl_backward", needs, gy, x, t, last=(int(log_target),))

    # -- over rows of class scores -------------------------------------------------------------

    def class_labels(self, labels: Any, classes: int, ignored: int | None) -> Any:
        labels = contiguous(labels.astype(np.int64, copy=False))
        y = self.xp.empty_like(labels)
        if y.size:
            ignores = ignored is not None
            blocks = blocks_for(y.size)
            _k.launch("class_labels", _f32, blocks, 256, labels, y, y.size, classes, int(ignores), ignored or 0)
        return y

    def softmax_cross_entropy(self, x: Any, labels: Any, smoothing: float) -> tuple[Any, Any, Any]:
        if not x.size or not has_kernel(x) or labels.dtype != _i64:
            return super().softmax_cross_entropy(x, labels, smoothing)
        x, labels = contiguous(x), contiguous(labels)
        loss, top, total = (self.xp.empty(len(x), x.dtype) for _ in range(3))
        _rows("softmax_cross_entropy", x.dtype, x.shape, (x, labels, loss, top, total), (float(smoothing),))
        return loss, top, total

    def softmax_cross_entropy_backward(
        self, gy: Any, x: Any, labels: Any, smoothing: float, top: Any, total: Any
    ) -> Any:
        if not x.size or not has_kernel(x, gy, top, total) or labels.dtype != _i64:
            return super().softmax_cross_entropy_backward(gy, x, labels, smoothing, top, total)
        x, labels, gy = contiguous(x), contiguous(labels), contiguous(gy)
        gx = self.xp.empty_like(x)
        arrays = (gy, _step(gy), x, labels, contiguous(top), contiguous(total), gx)
        _rows("softmax_cross_entropy_backward", x.dtype, x.shape, arrays, (float(smoothing),))
        return gx

    def labelled_mean(self, losses: Any, labels: Any) -> tuple[Any, Any]:
        if not losses.size or not has_kernel(losses) or labels.dtype != _i64:
            return super().labelled_mean(losses, labels)
        rows = losses.size
        chunk = max(_CHUNK, -(-rows // _MOST_CHUNKS))
        blocks = -(-rows // chunk)
        result = self.xp.empty(2, losses.dtype)
        partial = self.xp.empty(2 * blocks, np.float64) if blocks > 1 else None
        losses, labels = contiguous(losses), contiguous(labels)
        _k.launch("mean_of_rows", losses.dtype, blocks, 256, losses, labels, partial, result, rows, chunk)
        if partial is not None:
            _k.launch("finish_mean", losses.dtype, 1, 1, partial, result, blocks)
        return result[0], result[1]

    def nll(self, x: Any, labels: Any) -> Any:
        if not x.size or not has_kernel(x) or labels.dtype != _i64:
            return super().nll(x, labels)
        rows, classes = x.shape
        y = self.xp.empty(rows, x.dtype)
        _k.launch("nll", x.dtype, blocks_for(rows), 256, contiguous(x), contiguous(labels), y, rows, classes)
        return y

    def nll_backward(self, gy: Any, labels: Any, shape: tuple[int, int]) -> Any:
        if not shape[0] or not shape[1] or not has_kernel(gy) or labels.dtype != _i64:
            return super().nll_backward(gy, labels, shape)
        gy = contiguous(gy)
        gx = self.xp.empty(shape, gy.dtype)
        _rows("nll_backward", gy.dtype, shape, (gy, _step(gy), contiguous(labels), gx))
        return gx

    def multiclass_hinge(self, x: Any, labels: Any, p: int, margin: float) -> Any:
        if not x.size or not has_kernel(x) or labels.dtype != _i64:
            return super().multiclass_hinge(x, labels, p, margin)
        x, labels = contiguous(x), contiguous(labels)
        y = self.xp.empty(len(x), x.dtype)
        _rows("multiclass_hinge", x.dtype, x.shape, (x, labels, y), (int(p), float(margin)))
        return y

    def multiclass_hinge_backward(self, gy: Any, x: Any, labels: Any, p: int, margin: float) -> Any:
        if not x.size or not has_kernel(x, gy) or labels.dtype != _i64:
            return super().multiclass_hinge_backward(gy, x, labels, p, margin)
        x, labels, gy = contiguous(x), contiguous(labels), contiguous(gy)
        gx = self.xp.empty_like(x)
        arrays = (gy, _step(gy), x, labels, gx)
        _rows("multiclass_hinge_backward", x.dtype, x.shape, arrays, (int(p), float(margin)))
        return gx

    # -- launches ------------------------------------------------------------------------------

    def _forward(self, kernel: str, x: Any, t: Any, more: tuple = (), last: tuple = ()) -> Any:
        """more: arrays in the layout of x, or None; last: numbers."""
        x = dense(x)
        y = self.xp.empty_like(x)
        if y.size:
            _k.launch(kernel, x.dtype, blocks_for(x.size), 256, x, like(t, x), *more, y, x.size, *last)
        return y

    def _backward(self, kernel: str, gy: Any, x: Any, t: Any, more: tuple = (), last: tuple = ()) -> Any:
        """gy: one number, or in the shape of x."""
        x = dense(x)
        gx = self.xp.empty_like(x)
        if gx.size:
            step = _step(gy)
            gy = like(gy, x) if step else gy
            blocks = blocks_for(x.size)
            _k.launch(kernel, x.dtype, blocks, 256, gy, step, x, like(t, x), *more, gx, x.size, *last)
        return gx

    def _both(self, kernel: str, needs: Needs, gy: Any, x: Any, t: Any, more: tuple = (), last: tuple = ()) -> Pair:
        gx = self._backward(f"{kernel}_x", gy, x, t, more, last) if needs[0] else None
        return gx, self._backward(f"{kernel}_t", gy, x, t, more, last) if needs[1] else None

    def _spread(self, weight: Any, x: Any) -> Any:
        """Factors in the shape and the layout of x."""
        if weight is None:
            return None
        spread = self.xp.empty_like(x)
        spread[...] = weight
        return spread


def _step(gy: Any) -> int:
    """How far apart the gradients of two losses are: 0 where all have the same."""
    return 0 if gy.size == 1 else 1


def _rows(kernel: str, dtype: Any, shape: tuple[int, int], arrays: tuple, last: tuple = ()) -> None:
    """Launch a kernel of rows: groups of threads have a row each."""
    rows, classes = shape
    group = group_for(classes)
    _k.launch(kernel, dtype, blocks_for(rows * group), 256, *arrays, rows, classes, group, *last)
