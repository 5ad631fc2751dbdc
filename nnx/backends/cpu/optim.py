"""Optimizer updates with the compiled kernels: one call for a whole list of parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from nnx._ext import optim as _optim
from nnx.backends.base.optim import OptimOps, adam_factors
from nnx.backends.cpu._arrays import dense, has_kernel, is_dense, like, threads_for


class OptimKernels(OptimOps):
    """Overrides for dense float32 and float64 parameters; other rows of a list go to the base class."""

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
        scalars = (first, lr, momentum, dampening, weight_decay, nesterov, maximize)
        columns = (params, grads, buffers if momentum != 0 else None)
        _update(columns, 0.5, _optim.sgd_step, scalars, super().sgd_step, scalars)

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
        rate = lr / (1 + (step - 1) * lr_decay)
        _update(
            (params, grads, sums),
            0.75,
            _optim.adagrad_step,
            (rate, eps, weight_decay, maximize),
            super().adagrad_step,
            (step, lr, lr_decay, eps, weight_decay, maximize),
        )

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
        scalars = (lr, rho, eps, weight_decay, maximize)
        columns = (params, grads, square_avgs, acc_deltas)
        _update(columns, 1, _optim.adadelta_step, scalars, super().adadelta_step, scalars)

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
        scalars = (lr, alpha, eps, weight_decay, momentum, maximize)
        columns = (params, grads, square_avgs, grad_avgs, buffers)
        _update(columns, 0.75, _optim.rmsprop_step, scalars, super().rmsprop_step, scalars)

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
        rate, root = adam_factors(step, lr, beta1, beta2, bias_correction)
        keep, decay = (1 - lr * weight_decay, 0.0) if decoupled else (1.0, weight_decay)
        _update(
            (params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs),
            0.75,
            _optim.adam_step,
            (rate, root, keep, beta1, beta2, eps, decay, maximize),
            super().adam_step,
            (step, lr, beta1, beta2, eps, weight_decay, decoupled, bias_correction, maximize),
        )

    def total_norm(self, arrays: Sequence[np.ndarray], order: float) -> float:
        if order != 2 or not arrays or not has_kernel(*arrays):
            return super().total_norm(arrays, order)
        size = sum(a.size for a in arrays)
        return math.sqrt(_optim.square_sum([dense(a) for a in arrays], threads_for(size, 0.25)))

    def scale(self, arrays: Sequence[np.ndarray], factor: float) -> None:
        _update((arrays,), 0.25, _optim.scale, (factor,), super().scale, (factor,))


def _update(
    columns: tuple[Sequence[np.ndarray] | None, ...],
    cost: float,
    kernel: Callable[..., bool],
    kernel_scalars: tuple,
    base: Callable[..., None],
    base_scalars: tuple,
) -> None:
    """Give the kernel the rows that it takes, and the base class the others (all, if arrays share memory).

    columns:  lists with one array per parameter: parameters, gradients, accumulators; None where a method has none
    cost:     work per element, in simple operations
    """
    size = _optim.fit(columns)
    fast, rest, size = (columns, ([],), size) if size >= 0 else _split(columns)
    if not kernel(*fast, *kernel_scalars, threads_for(size, cost)):
        rest = columns
    if rest[0]:
        base(*rest, *base_scalars)


def _split(columns: tuple) -> tuple[tuple, tuple, int]:
    """Columns with the rows that the kernels take, columns with the other rows, and the elements of the former.

    The first column sets the layout of a row; a gradient, in the second, is brought into it. The kernels take one type
    per call, that of the first row they can take. A column that is None stays None.
    """
    missing = [None] * len(columns[0])
    fast: list[tuple] = []
    rest: list[tuple] = []
    size = 0
    for row in zip(*(missing if c is None else c for c in columns), strict=True):
        p = row[0]
        if _taken(row) and (not fast or fast[0][0].dtype == p.dtype):
            fast.append((p, like(row[1], p), *row[2:]) if len(row) > 1 else row)
            size += p.size
        else:
            rest.append(row)
    return _turn(fast, columns), _turn(rest, columns), size


def _taken(row: tuple) -> bool:
    """Whether the kernels take a parameter, its gradient and its accumulators."""
    p = row[0]
    return (
        has_kernel(*[a for a in row if a is not None])
        and p.flags.writeable
        and is_dense(p)
        and all(a is None or (a.strides == p.strides and a.flags.writeable) for a in row[2:])
    )


def _turn(rows: list[tuple], columns: tuple) -> tuple:
    """Rows back into columns."""
    return tuple(None if c is None else [row[k] for row in rows] for k, c in enumerate(columns))
