"""Matrix products by ext/gemm.pyx. NumPy's own would start BLAS threads that spin beside ours."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx._ext import gemm as _gemm
from nnx._ext.memory import empty
from nnx.backends.cpu._arrays import contiguous, has_kernel, threads_for


class GemmKernels:
    """Matrix products, and the fully connected layer that is one."""

    def contiguous(self, a: np.ndarray) -> np.ndarray:
        return contiguous(a) if a.ndim else a

    def matmul(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        c = _gemm.try_multiply(a, b)
        if c is not None:
            return c
        if not has_kernel(a, b) or a.ndim == 0 or b.ndim == 0:
            return super().matmul(a, b)  # type: ignore[misc]
        return _stacked(a, b)

    def linear(self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, relu: bool = False) -> np.ndarray:
        if not (has_kernel(x, w) if b is None else has_kernel(x, w, b)):
            return super().linear(x, w, b, relu)  # type: ignore[misc]
        if x.ndim == 2:
            return _gemm.multiply(x, w.T, b, relu)
        rows = x.reshape(_rows(x.shape), x.shape[-1])
        return _gemm.multiply(rows, w.T, b, relu).reshape(*x.shape[:-1], w.shape[0])

    def linear_backward(
        self, gy: np.ndarray, x: np.ndarray, w: np.ndarray, needs: tuple[bool, bool, bool]
    ) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
        if not has_kernel(gy, x, w):
            return super().linear_backward(gy, x, w, needs)  # type: ignore[misc]
        g, rows = gy, x
        if x.ndim != 2:
            n = _rows(x.shape)
            g, rows = gy.reshape(n, gy.shape[-1]), x.reshape(n, x.shape[-1])
        gx = _gemm.multiply(g, w, None).reshape(x.shape) if needs[0] else None
        gw = _gemm.multiply(g.T, rows, None) if needs[1] else None
        gb = column_sums(g) if needs[2] else None
        return gx, gw, gb


def _rows(shape: tuple[int, ...]) -> int:
    """Product of all dimensions but the last (reshape cannot infer it if the last is 0)."""
    n = 1
    for length in shape[:-1]:
        n *= length
    return n


def _stacked(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products of vectors and stacks of matrices, by NumPy's rules."""
    vector_a, vector_b = a.ndim == 1, b.ndim == 1
    a = a[None, :] if vector_a else a
    b = b[:, None] if vector_b else b
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul: expected shapes (.., M, K) and (.., K, N), got {a.shape} and {b.shape}")
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    c = empty((*lead, a.shape[-2], b.shape[-1]), a.dtype)
    if b.ndim == 2 and c.size:  # one matrix for all: one tall product
        c[...] = _gemm.multiply(a.reshape(_rows(a.shape), a.shape[-1]), b, None).reshape(c.shape)
    else:
        wide_a = np.broadcast_to(a, (*lead, *a.shape[-2:]))
        wide_b = np.broadcast_to(b, (*lead, *b.shape[-2:]))
        for i in np.ndindex(*lead):
            c[i] = _gemm.multiply(wide_a[i], wide_b[i], None)
    if vector_a:
        c = c[..., 0, :]
    return c[..., 0] if vector_b else c


def column_sums(a: np.ndarray) -> Any:
    """The sum of the rows of a matrix; the same bits for any number of threads."""
    out = np.empty(a.shape[1], a.dtype)
    _gemm.column_sums(np.ascontiguousarray(a), out, threads_for(a.size))
    return out
