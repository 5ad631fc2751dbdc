"""Optimizer updates: one launch for all parameters (for every 64 of them), and norms that stay on the device.

While a CUDA graph is captured, the kernels read the numbers that change from step to step from device memory, and the
steps of the host's counts are made again before each replay: see `_capture.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from nnx.backends.base.optim import OptimOps, adam_factors
from nnx.backends.cuda import _capture
from nnx.backends.cuda._arrays import dense, has_kernel, is_dense, like
from nnx.backends.cuda._kernels import Kernels

_ROWS = 64  # as in optim.cu, likewise the next three
_CHUNK = 2048
_rows = np.dtype(
    [
        ("address", np.int64, (5, _ROWS)),
        ("size", np.int64, (_ROWS,)),
        ("first", np.int64, (_ROWS + 1,)),
        ("count", np.int64),
    ]
)
_numbers = np.dtype([("at", np.float64, (10,))])
_k = Kernels("optim")


class OptimCUDA(OptimOps):
    """Overrides for dense float32 and float64 parameters; other rows of a list go to the base class."""

    xp: Any

    def sgd_step(
        self,
        params: Sequence[Any],
        grads: Sequence[Any],
        buffers: Sequence[Any],
        first: bool,
        lr: float,
        momentum: float,
        dampening: float,
        weight_decay: float,
        nesterov: bool,
        maximize: bool,
    ) -> None:
        _update(
            "sgd_step",
            (params, grads, buffers if momentum != 0 else None),
            (lr, momentum, 1 - dampening, weight_decay, first, nesterov, maximize),
            super().sgd_step,
            (first, lr, momentum, dampening, weight_decay, nesterov, maximize),
        )

    def adagrad_step(
        self,
        params: Sequence[Any],
        grads: Sequence[Any],
        sums: Sequence[Any],
        step: int,
        lr: float,
        lr_decay: float,
        eps: float,
        weight_decay: float,
        maximize: bool,
    ) -> None:
        _update(
            "adagrad_step",
            (params, grads, sums),
            (lr / (1 + (step - 1) * lr_decay), eps, weight_decay, maximize),
            super().adagrad_step,
            (step, lr, lr_decay, eps, weight_decay, maximize),
        )

    def adadelta_step(
        self,
        params: Sequence[Any],
        grads: Sequence[Any],
        square_avgs: Sequence[Any],
        acc_deltas: Sequence[Any],
        lr: float,
        rho: float,
        eps: float,
        weight_decay: float,
        maximize: bool,
    ) -> None:
        _update(
            "adadelta_step",
            (params, grads, square_avgs, acc_deltas),
            (lr, rho, 1 - rho, eps, weight_decay, maximize),
            super().adadelta_step,
            (lr, rho, eps, weight_decay, maximize),
        )

    def rmsprop_step(
        self,
        params: Sequence[Any],
        grads: Sequence[Any],
        square_avgs: Sequence[Any],
        grad_avgs: Sequence[Any] | None,
        buffers: Sequence[Any] | None,
        lr: float,
        alpha: float,
        eps: float,
        weight_decay: float,
        momentum: float,
        maximize: bool,
    ) -> None:
        _update(
            "rmsprop_step",
            (params, grads, square_avgs, grad_avgs, buffers),
            (lr, alpha, 1 - alpha, eps, weight_decay, momentum, maximize),
            super().rmsprop_step,
            (lr, alpha, eps, weight_decay, momentum, maximize),
        )

    def adam_step(
        self,
        params: Sequence[Any],
        grads: Sequence[Any],
        exp_avgs: Sequence[Any],
        exp_avg_sqs: Sequence[Any],
        max_exp_avg_sqs: Sequence[Any] | None,
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
            "adam_step",
            (params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs),
            (rate, root, keep, 1 - beta1, beta2, 1 - beta2, eps, decay, maximize),
            super().adam_step,
            (step, lr, beta1, beta2, eps, weight_decay, decoupled, bias_correction, maximize),
        )

    def total_norm(self, arrays: Sequence[Any], order: float) -> float:
        if not arrays or not has_kernel(*arrays):
            return super().total_norm(arrays, order)
        return float(self._norm(arrays, order, math.inf)[0])

    def clip_norm(self, arrays: Sequence[Any], changed: Sequence[Any], most: float, order: float) -> Any:
        if not arrays or not has_kernel(*arrays, *changed) or not all(is_dense(a) for a in changed):
            return self.xp.asarray(super().clip_norm(arrays, changed, most, order))
        result = self._norm(arrays, order, most)
        table = _Table([(a,) for a in changed])
        for part, chunks in table.parts():
            _launch("scale", table.dtype, chunks, part, (), result[1:])
        return result[0]

    def scale(self, arrays: Sequence[Any], factor: float) -> None:
        _update("scale", (arrays,), (factor,), super().scale, (factor,), constant=True)

    def clamp(self, arrays: Sequence[Any], low: float, high: float) -> None:
        _update("clamp", (arrays,), (low, high), super().clamp, (low, high), constant=True)

    def is_capturing(self) -> bool:
        return _capture.current() is not None

    def when_replayed(self, again: Callable[[], None]) -> None:
        capture = _capture.current()
        if capture is not None and not capture.repeating:
            capture.when_replayed(again)

    def _norm(self, arrays: Sequence[Any], order: float, most: float) -> Any:
        """The norm, and the factor that brings it down to `most`, as two numbers on the device."""
        order = 0.0 if order == math.inf else float(order)
        table = _Table([(dense(a),) for a in arrays])  # keeps copies alive until the launches are made
        parts = list(table.parts())
        total = sum(chunks for _, chunks in parts)
        partial = self.xp.empty(max(total, 1), np.float64)
        start = 0
        for part, chunks in parts:
            _k.launch("partial_norms", arrays[0].dtype, chunks, 256, part, order, partial[start : start + chunks])
            start += chunks
        result = self.xp.empty(2, np.float64)
        bound = most if most != math.inf else 0.0
        _k.launch(
            "finish_norm", arrays[0].dtype, 1, 256, partial, total, order, bound, int(most != math.inf), result
        )  # fmt: skip
        return result


def _update(
    kernel: str,
    columns: tuple[Sequence[Any] | None, ...],
    numbers: tuple[float, ...],
    base: Callable[..., None],
    scalars: tuple,
    constant: bool = False,
) -> None:
    """Give the kernel the rows that it takes, and the base class the others (all, if arrays share memory).

    columns:  lists with one array per parameter: parameters, gradients, accumulators; None where a method has none
    numbers:  what the kernel is told
    scalars:  what the base class is told
    constant: a captured graph keeps the numbers
    """
    capture = None if constant else _capture.current()
    if capture is not None and capture.repeating:
        capture.numbers(numbers)
        return
    rows, rest = _split(columns)
    table = _Table(rows)
    if table.overlaps():
        rows, rest = [], columns
    if capture is not None and rest[0]:
        raise RuntimeError(
            f"cuda.graph: expected parameters of {kernel} that are dense, of one float type and apart in memory, got "
            "others. Only the step of such parameters can be captured"
        )
    live = None if capture is None else capture.numbers(numbers)
    if rows:
        for part, chunks in table.parts():
            _launch(kernel, table.dtype, chunks, part, numbers, live)
    if rest[0]:
        base(*rest, *scalars)


def _launch(kernel: str, dtype: Any, chunks: int, rows: Any, numbers: Sequence[float], live: Any) -> None:
    given = np.zeros((), _numbers)
    given["at"][: len(numbers)] = numbers
    _k.launch(kernel, dtype, chunks, 256, rows, given, live)


def _split(columns: tuple) -> tuple[list[tuple], tuple]:
    """The rows that the kernels take, and columns with the other rows.

    The first column sets the layout of a row; a gradient, in the second, is brought into it. The kernels take one type
    per call, that of the first row they can take. A column that is None stays None.
    """
    missing = [None] * len(columns[0])
    fast: list[tuple] = []
    rest: list[tuple] = []
    for row in zip(*(missing if c is None else c for c in columns), strict=True):
        if _taken(row) and (not fast or fast[0][0].dtype == row[0].dtype):
            fast.append((row[0], like(row[1], row[0]), *row[2:]) if len(row) > 1 else row)
        else:
            rest.append(row)
    return fast, tuple(None if c is None else [row[k] for row in rest] for k, c in enumerate(columns))


def _taken(row: tuple) -> bool:
    """Whether the kernels take a parameter, its gradient and its accumulators."""
    p = row[0]
    return (
        has_kernel(*[a for a in row if a is not None])
        and is_dense(p)
        and all(a is None or _same_layout(a, p) for a in row[2:])
    )


def _same_layout(a: Any, p: Any) -> bool:
    return a.shape == p.shape and (a.strides == p.strides or like(a, p) is a)


class _Table:
    """Where the arrays of rows lie.

    rows:  a parameter, its gradient and its accumulators each, or None; all of one type and dense. They are kept alive
    """

    def __init__(self, rows: list[tuple]) -> None:
        self._rows = rows = [row for row in rows if row[0].size]
        self.dtype: Any = rows[0][0].dtype if rows else None
        self._sizes = np.array([row[0].size for row in rows], np.int64)
        self._starts = np.zeros((len(rows), len(rows[0]) if rows else 1), np.int64)
        for i, row in enumerate(rows):
            self._starts[i] = [0 if a is None else a.data.ptr for a in row]

    def overlaps(self) -> bool:
        """Whether an array that is written to shares memory with any other; gradients, in column 1, are only read."""
        if not self._rows:
            return False
        ends = self._starts + np.where(self._starts != 0, self._sizes[:, None] * self.dtype.itemsize, 0)
        written = np.ones(self._starts.shape, bool)
        written[:, 1:2] = False
        order = np.argsort(self._starts, axis=None, kind="stable")
        starts, ends, written = self._starts.ravel()[order], ends.ravel()[order], written.ravel()[order]
        before = np.maximum.accumulate(ends)[:-1]  # the end of all that begins before
        written_before = np.maximum.accumulate(np.where(written, ends, 0))[:-1]
        return bool((starts[1:] < np.where(written[1:], before, written_before)).any())

    def parts(self) -> Iterator[tuple[Any, int]]:
        """The argument `Rows` of the kernels for 64 rows at a time, each with its number of chunks."""
        for start in range(0, len(self._rows), _ROWS):
            sizes = self._sizes[start : start + _ROWS]
            count, columns = len(sizes), self._starts.shape[1]
            part = np.zeros((), _rows)
            part["address"][:columns, :count] = self._starts[start : start + _ROWS].T
            part["size"][:count] = sizes
            part["first"][1 : count + 1] = np.cumsum(-(-sizes // _CHUNK))
            part["count"] = count
            yield part, int(part["first"][count])
