"""Losses in plain NumPy: the loss of each element or row; means and sums over them are taken in
`nnx.functional.loss`.

Elementwise losses compare x and t of one shape; row losses take a matrix x of R rows of C scores
and one class label per row, where the label -1 marks a row that is skipped: its loss and gradient
are 0, whatever it holds. (Other labels out of range give NaN on a CUDA device.) In a `_backward`,
`gy` has the shape of the loss or is a single number for all of it (as after a sum).
"""

from __future__ import annotations

from typing import Any

import numpy as np

_quiet = np.errstate(all="ignore")


class LossOps:
    """Elementwise losses and losses over rows of class scores."""

    xp: Any
    softmax: Any
    log_softmax: Any

    # -- elementwise ---------------------------------------------------------------------------

    @_quiet
    def squared_error(self, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        """``(x - t)^2``. The gradient for t is the negative of the one for x, here and in the next two."""
        return np.square(x - t)

    @_quiet
    def squared_error_backward(self, gy: np.ndarray, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        return (2 * gy) * (x - t)

    @_quiet
    def absolute_error(self, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        """``|x - t|``; the slope at 0 is 0."""
        return np.abs(x - t)

    @_quiet
    def absolute_error_backward(self, gy: np.ndarray, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        return gy * np.sign(x - t)

    @_quiet
    def huber(self, x: np.ndarray, t: np.ndarray, delta: float) -> np.ndarray:
        """``d^2 / 2`` for ``d = |x - t| < delta``, else ``delta (d - delta / 2)``."""
        d = np.abs(x - t)
        return np.where(d < delta, 0.5 * d * d, delta * (d - 0.5 * delta))

    @_quiet
    def huber_backward(self, gy: np.ndarray, x: np.ndarray, t: np.ndarray, delta: float) -> np.ndarray:
        return gy * np.clip(x - t, -delta, delta)

    @_quiet
    def bce(self, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        """``-(t log(x) + (1 - t) log(1 - x))`` for probabilities x, with logarithms cut at -100."""
        return (t - 1) * np.maximum(np.log1p(-x), -100) - t * np.maximum(np.log(x), -100)

    @_quiet
    def bce_backward(
        self, gy: np.ndarray, x: np.ndarray, t: np.ndarray, needs: tuple[bool, bool]
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The gradients for x, ``(x - t) / (x (1 - x))`` with a divisor of at least 1e-12, and for t."""
        gx = gt = None
        if needs[0]:
            gx = gy * ((x - t) / np.maximum(x * (1 - x), 1e-12))
        if needs[1]:
            gt = gy * (np.maximum(np.log1p(-x), -100) - np.maximum(np.log(x), -100))
        return gx, gt

    @_quiet
    def bce_with_logits(self, x: np.ndarray, t: np.ndarray, pos_weight: np.ndarray | None) -> np.ndarray:
        """``c |x| + log(1 + exp(-|x|))``: `bce` of the sigmoid of x, without its rounding.

        c is how far the target is on the other side: 1 - t for x > 0, else t. `pos_weight`, which
        broadcasts to x, multiplies the term of t: c is ``pos_weight t`` for x <= 0 then, and the
        logarithm has the factor ``1 + (pos_weight - 1) t``.
        """
        size = np.abs(x)
        rest = np.log1p(np.exp(-size))
        if pos_weight is None:
            c = np.where(x > 0, 1 - t, t)
        else:
            c = np.where(x > 0, 1 - t, pos_weight * t)
            rest = (1 + (pos_weight - 1) * t) * rest
        return np.where(c == 0, 0, c * size) + rest

    @_quiet
    def bce_with_logits_backward(
        self,
        gy: np.ndarray,
        x: np.ndarray,
        t: np.ndarray,
        pos_weight: np.ndarray | None,
        needs: tuple[bool, bool],
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        e = np.exp(-np.abs(x))
        gx = gt = None
        if pos_weight is None:
            if needs[0]:
                gx = gy * (np.where(x >= 0, 1, e) / (1 + e) - t)
            if needs[1]:
                gt = gy * -x
            return gx, gt
        if needs[0]:
            below = np.where(x >= 0, e, 1) / (1 + e)  # 1 - sigmoid(x)
            gx = gy * ((1 - t) - (1 + (pos_weight - 1) * t) * below)
        if needs[1]:
            gt = gy * ((pos_weight - 1) * (np.log1p(e) - np.minimum(x, 0)) - x)
        return gx, gt

    @_quiet
    def kl(self, x: np.ndarray, t: np.ndarray, log_target: bool) -> np.ndarray:
        """``p (log(p) - x)`` for log-probabilities x, 0 where p = 0; t holds p, or log(p) with `log_target`."""
        p, log_p = (np.exp(t), t) if log_target else (t, np.log(t))
        return np.where(p == 0, 0, p * (log_p - x))

    @_quiet
    def kl_backward(
        self,
        gy: np.ndarray,
        x: np.ndarray,
        t: np.ndarray,
        log_target: bool,
        needs: tuple[bool, bool],
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        p = np.exp(t) if log_target else t
        gx = gt = None
        if needs[0]:
            gx = gy * -p
        if needs[1]:
            slope = p * (t - x + 1) if log_target else np.log(t) + 1 - x
            gt = gy * np.where(p == 0, 0, slope)
        return gx, gt

    # -- over rows of class scores -------------------------------------------------------------

    def class_labels(self, labels: np.ndarray, classes: int, ignored: int | None) -> np.ndarray:
        """Integers as labels in int64: -1 for those equal to `ignored`, `classes` for others that are out of range."""
        labels = labels.astype(np.int64, copy=False)
        wrong = (labels < 0) | (labels >= classes)
        y = np.where(wrong, classes, labels)
        return y if ignored is None else np.where(labels == ignored, -1, y)

    @_quiet
    def labelled_mean(self, losses: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The mean of the losses (R,) of rows that are not skipped, and how many these are, in the losses' dtype."""
        count = (labels >= 0).sum().astype(losses.dtype)
        return losses.sum() / count, count

    @_quiet
    def softmax_cross_entropy(
        self, x: np.ndarray, labels: np.ndarray, smoothing: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``-sum(q log(softmax(x)))`` for each row, where q is ``1 - smoothing`` at the label plus
        ``smoothing / C``.

        x: (R, C); labels: (R,), in [-1, C)

        Returns the losses and, for the gradient, each row's largest score and its sum of ``exp(x -
        largest)``, all (R,).
        """
        skipped = labels < 0
        if x.size == 0:
            return tuple(self.xp.zeros(len(x), x.dtype) for _ in range(3))
        top = np.max(x, axis=1)
        z = x - top[:, None]
        total = np.exp(z).sum(axis=1)
        loss = np.log(total) - (1 - smoothing) * z[self.xp.arange(len(x)), labels]
        if smoothing != 0:
            loss -= smoothing * (z.sum(axis=1) / x.shape[1])
        return np.where(skipped, 0, loss), top, total

    @_quiet
    def softmax_cross_entropy_backward(
        self,
        gy: np.ndarray,
        x: np.ndarray,
        labels: np.ndarray,
        smoothing: float,
        top: np.ndarray,
        total: np.ndarray,
    ) -> np.ndarray:
        """``gy (softmax(x) - q)``."""
        if x.size == 0:
            return np.zeros_like(x)
        gx = np.exp(x - top[:, None]) / total[:, None]
        if smoothing != 0:
            gx -= smoothing / x.shape[1]
        gx[self.xp.arange(len(x)), labels] -= 1 - smoothing
        gx *= gy[..., None]
        gx[labels < 0] = 0
        return gx

    @_quiet
    def soft_cross_entropy(self, x: np.ndarray, t: np.ndarray, axis: int) -> np.ndarray:
        """``-sum(t log(softmax(x)))`` over `axis` for weights t in the shape of x; a weight of 0 counts nothing."""
        return -np.where(t == 0, 0, t * self.log_softmax(x, axis)).sum(axis=axis)

    @_quiet
    def soft_cross_entropy_backward(
        self,
        gy: np.ndarray,
        x: np.ndarray,
        t: np.ndarray,
        axis: int,
        needs: tuple[bool, bool],
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """``gy (sum(t) softmax(x) - t)`` for x, ``-gy log(softmax(x))`` for t."""
        g = gy if gy.ndim == 0 else np.expand_dims(gy, axis)
        gx = gt = None
        if needs[0]:
            weight = t.sum(axis=axis, keepdims=True)
            pull = np.where(weight == 0, 0, weight * self.softmax(x, axis))
            gx = g * (pull - t)
        if needs[1]:
            gt = -g * self.log_softmax(x, axis)
        return gx, gt

    def nll(self, x: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """``-x[label]`` for each row."""
        if x.size == 0:
            return self.xp.zeros(len(x), x.dtype)
        return np.where(labels < 0, 0, -x[self.xp.arange(len(x)), labels])

    def nll_backward(self, gy: np.ndarray, labels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        gx = self.xp.zeros(shape, gy.dtype)
        if gx.size:
            gx[self.xp.arange(len(gx)), labels] = -gy
            gx[labels < 0] = 0
        return gx

    @_quiet
    def multiclass_hinge(self, x: np.ndarray, labels: np.ndarray, p: int, margin: float) -> np.ndarray:
        """``sum(max(0, margin + x[j] - x[label])^p)`` over the classes j other than the label, for each row."""
        gap = self._gaps(x, labels, margin)
        return (np.square(gap) if p == 2 else gap).sum(axis=1)

    @_quiet
    def multiclass_hinge_backward(
        self, gy: np.ndarray, x: np.ndarray, labels: np.ndarray, p: int, margin: float
    ) -> np.ndarray:
        if x.size == 0:
            return np.zeros_like(x)
        gap = self._gaps(x, labels, margin)
        gx = (2 * gap if p == 2 else np.sign(gap)) * gy[..., None]
        gx[self.xp.arange(len(x)), labels] = -gx.sum(axis=1)
        return gx

    def _gaps(self, x: np.ndarray, labels: np.ndarray, margin: float) -> np.ndarray:
        """``max(0, margin + x[j] - x[label])``, and 0 at the label itself and in skipped rows."""
        if x.size == 0:
            return np.zeros_like(x)
        rows = self.xp.arange(len(x))
        gap = np.maximum(x - x[rows, labels][:, None] + margin, 0)
        gap[rows, labels] = 0
        gap[labels < 0] = 0
        return gap
