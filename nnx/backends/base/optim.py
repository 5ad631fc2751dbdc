"""Optimizer updates in plain NumPy.

Each `*_step` updates lists of arrays in place: parameters, and the accumulators of the method. Row
i of every list belongs to parameter i; all arrays of a row have one shape and any strides. The
scalars hold for the whole list, so the caller makes one call per set of parameters that share them.
NaN and infinity pass through without a warning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_quiet = np.errstate(all="ignore")


class OptimOps:
    """One step of each optimizer, and what gradient clipping needs."""

    @_quiet
    def sgd_step(
        self,
        params: Sequence[np.ndarray],
        grads: Sequence[np.ndarray],
        buffers: Sequence[np.ndarray],
        first: bool,
        lr: float,
        momentum: float,
        dampening: float,
        weight_decay: float,
        nesterov: bool,
        maximize: bool,
    ) -> None:
        """``b = momentum b + (1 - dampening) g;  p -= lr b``, or ``p -= lr (g + momentum b)`` with `nesterov`.

        `buffers` is not used when `momentum` is 0, and set to the gradient when this is the `first` step.
        """
        for i, (p, grad) in enumerate(zip(params, grads, strict=True)):
            g = _descent(p, grad, weight_decay, maximize)
            if momentum != 0:
                b = buffers[i]
                b[...] = g if first else momentum * b + (1 - dampening) * g
                g = g + momentum * b if nesterov else b
            p -= lr * g

    @_quiet
    def adagrad_step(
        self,
        params: Sequence[np.ndarray],
        grads: Sequence[np.ndarray],
        sums: Sequence[np.ndarray],
        step: int,
        lr: float,
        lr_decay: float,
        eps: float,
        weight_decay: float,
        maximize: bool,
    ) -> None:
        """``s += g^2;  p -= lr / (1 + (step - 1) lr_decay) g / (sqrt(s) + eps)``; `step` counts from 1."""
        rate = lr / (1 + (step - 1) * lr_decay)
        for p, grad, s in zip(params, grads, sums, strict=True):
            g = _descent(p, grad, weight_decay, maximize)
            s += g * g
            p -= rate * g / (np.sqrt(s) + eps)

    @_quiet
    def adadelta_step(
        self,
        params: Sequence[np.ndarray],
        grads: Sequence[np.ndarray],
        square_avgs: Sequence[np.ndarray],
        acc_deltas: Sequence[np.ndarray],
        lr: float,
        rho: float,
        eps: float,
        weight_decay: float,
        maximize: bool,
    ) -> None:
        """``p -= lr d`` with ``d = g sqrt(a + eps) / sqrt(v + eps)``.

        ``v = rho v + (1 - rho) g^2`` comes before, and ``a = rho a + (1 - rho) d^2`` behind.
        """
        for p, grad, v, a in zip(params, grads, square_avgs, acc_deltas, strict=True):
            g = _descent(p, grad, weight_decay, maximize)
            v[...] = rho * v + (1 - rho) * (g * g)
            d = np.sqrt(a + eps) / np.sqrt(v + eps) * g
            a[...] = rho * a + (1 - rho) * (d * d)
            p -= lr * d

    @_quiet
    def rmsprop_step(
        self,
        params: Sequence[np.ndarray],
        grads: Sequence[np.ndarray],
        square_avgs: Sequence[np.ndarray],
        grad_avgs: Sequence[np.ndarray] | None,
        buffers: Sequence[np.ndarray] | None,
        lr: float,
        alpha: float,
        eps: float,
        weight_decay: float,
        momentum: float,
        maximize: bool,
    ) -> None:
        """``v = alpha v + (1 - alpha) g^2;  p -= lr g / (sqrt(v) + eps)``.

        With `grad_avgs` (centered) the mean gradient is kept too and its square subtracted from v under the root; with
        `buffers` the quotient is added to ``momentum b`` and the step is ``lr b``.
        """
        for i, (p, grad, v) in enumerate(zip(params, grads, square_avgs, strict=True)):
            g = _descent(p, grad, weight_decay, maximize)
            v[...] = alpha * v + (1 - alpha) * (g * g)
            spread = v
            if grad_avgs is not None:
                m = grad_avgs[i]
                m[...] = m + (1 - alpha) * (g - m)
                spread = v - m * m
            d = g / (np.sqrt(spread) + eps)
            if buffers is not None:
                b = buffers[i]
                b[...] = momentum * b + d
                d = b
            p -= lr * d

    @_quiet
    def adam_step(
        self,
        params: Sequence[np.ndarray],
        grads: Sequence[np.ndarray],
        exp_avgs: Sequence[np.ndarray],
        exp_avg_sqs: Sequence[np.ndarray],
        max_exp_avg_sqs: Sequence[np.ndarray] | None,
        step: int,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
        decoupled: bool,
        bias_correction: bool,
        maximize: bool,
    ) -> None:
        """``m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;  p -= lr M / (sqrt(V) + eps)``.

        ``M = m / (1 - beta1^step)`` and ``V = v / (1 - beta2^step)`` with `bias_correction`, else m and v; `step`
        counts from 1. With `max_exp_avg_sqs` (AMSGrad) V comes from the largest v so far. `decoupled` decays the
        parameter itself (AdamW) and not by way of the gradient.
        """
        rate, root = adam_factors(step, lr, beta1, beta2, bias_correction)
        for i, (p, grad, m, v) in enumerate(zip(params, grads, exp_avgs, exp_avg_sqs, strict=True)):
            g = _descent(p, grad, 0.0 if decoupled else weight_decay, maximize)
            m[...] = m + (1 - beta1) * (g - m)
            v[...] = beta2 * v + (1 - beta2) * (g * g)
            if max_exp_avg_sqs is not None:
                largest = max_exp_avg_sqs[i]
                v = np.maximum(largest, v, out=largest)
            if decoupled and weight_decay != 0:
                p *= 1 - lr * weight_decay
            p -= rate * m / (np.sqrt(v) / root + eps)

    @_quiet
    def total_norm(self, arrays: Sequence[np.ndarray], order: float) -> float:
        """``(sum |a|^order)^(1/order)`` over all elements of all arrays (the largest |a| for infinity), in float64."""
        if order == math.inf:
            largest = [float(np.max(np.abs(a))) for a in arrays if a.size]
            return float(np.max(largest)) if largest else 0.0  # np.max keeps NaN, max() may not
        if order == 2:
            return math.sqrt(sum(float(np.sum(np.square(a, dtype=np.float64))) for a in arrays))
        total = sum(float(np.sum(np.abs(a).astype(np.float64) ** order)) for a in arrays)
        return float(np.float64(total) ** (1 / order))

    def clip_norm(self, arrays: Sequence[np.ndarray], changed: Sequence[np.ndarray], most: float, order: float) -> Any:
        """Scale `changed` by ``most / (norm + 1e-6)`` where that is less than 1, or NaN; the norm is that of `arrays`.

        Returns the norm; on a CUDA device as an array without dimensions, and without waiting for it.
        """
        norm = self.total_norm(arrays, order)
        factor = most / (norm + 1e-6)
        if most != math.inf and not factor >= 1:
            self.scale(changed, factor)
        return norm

    def is_capturing(self) -> bool:
        """Whether a CUDA graph is being captured."""
        return False

    def when_replayed(self, again: Callable[[], None]) -> None:
        """Have `again` called before each replay but the first of the CUDA graph that is captured, if one is."""

    @_quiet
    def scale(self, arrays: Sequence[np.ndarray], factor: float) -> None:
        """``a *= factor`` for every array."""
        for a in arrays:
            a *= factor

    @_quiet
    def clamp(self, arrays: Sequence[np.ndarray], low: float, high: float) -> None:
        """``a = min(max(a, low), high)`` for every array; NaN stays."""
        for a in arrays:
            np.clip(a, low, high, out=a)


def adam_factors(step: int, lr: float, beta1: float, beta2: float, bias_correction: bool) -> tuple[float, float]:
    """The learning rate with the first bias correction, and the root of the second."""
    if not bias_correction:
        return lr, 1.0
    return lr / (1 - beta1**step), math.sqrt(1 - beta2**step)


def _descent(p: np.ndarray, g: np.ndarray, weight_decay: float, maximize: bool) -> np.ndarray:
    """The direction to go down: the gradient (its negative to maximize), with L2 decay."""
    if maximize:
        g = -g
    if weight_decay != 0:
        g = g + weight_decay * p
    return g
