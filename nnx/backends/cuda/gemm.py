"""Matrix products by cuBLAS; the bias and ReLU behind them and sums of columns by gemm.cu."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnx.backends.cuda import _cublas
from nnx.backends.cuda._arrays import contiguous, has_kernel
from nnx.backends.cuda._kernels import Kernels, blocks_for

_kernels = Kernels("gemm")

_INDEX = 2**31  # kernels count elements with 32 bits
_CHUNK = 16384  # numbers that a block of `column_sums` adds up, at least
_MOST_CHUNKS = 256
_WIDTH = 256  # columns of one block


class GemmCUDA:
    """Matrix products, and the fully connected layer that is one.

    Multiplication of float32 follows `nnx.cuda.set_float32_matmul_precision`.
    """

    xp: Any

    def contiguous(self, a: Any) -> Any:
        return contiguous(a) if a.ndim else a

    def matmul(self, a: Any, b: Any) -> Any:
        if not has_kernel(a, b) or a.ndim == 0 or b.ndim == 0:
            return super().matmul(a, b)  # type: ignore[misc]
        vector_a, vector_b = a.ndim == 1, b.ndim == 1
        a = a[None, :] if vector_a else a
        b = b[:, None] if vector_b else b
        if a.shape[-1] != b.shape[-2]:
            raise ValueError(f"matmul: expected shapes (.., M, K) and (.., K, N), got {a.shape} and {b.shape}")
        c = _stacked(self.xp, a, b)
        if vector_a:
            c = c[..., 0, :]
        return c[..., 0] if vector_b else c

    def linear(self, x: Any, w: Any, b: Any, relu: bool = False) -> Any:
        if not (has_kernel(x, w) if b is None else has_kernel(x, w, b)):
            return super().linear(x, w, b, relu)  # type: ignore[misc]
        rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
        y = product(self.xp, rows, w.T)
        bias_relu(y, b, relu)
        return y.reshape(*x.shape[:-1], len(w))

    def linear_backward(self, gy: Any, x: Any, w: Any, needs: tuple[bool, bool, bool]) -> tuple[Any, Any, Any]:
        if not has_kernel(gy, x, w):
            return super().linear_backward(gy, x, w, needs)  # type: ignore[misc]
        n = math.prod(x.shape[:-1])
        g = gy.reshape(n, gy.shape[-1])
        gx = product(self.xp, g, w).reshape(x.shape) if needs[0] else None
        gw = product(self.xp, g.T, x.reshape(n, x.shape[-1])) if needs[1] else None
        gb = column_sums(self.xp, g) if needs[2] else None
        return gx, gw, gb


def product(xp: Any, a: Any, b: Any) -> Any:
    """The product of two matrices as a fresh C-contiguous array; a sum of nothing is 0."""
    c = xp.empty((a.shape[0], b.shape[1]), a.dtype)
    if a.shape[1] == 0:
        c.fill(0)
    elif c.size:
        _cublas.multiply(c, _operand(a), _operand(b))
    return c


def _stacked(xp: Any, a: Any, b: Any) -> Any:
    """The product of stacks of matrices that broadcast."""
    if b.ndim == 2:  # one matrix for all: one tall product
        c = product(xp, a.reshape(math.prod(a.shape[:-1]), a.shape[-1]), b)
        return c.reshape(*a.shape[:-1], b.shape[1])
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    c = xp.empty((*lead, a.shape[-2], b.shape[-1]), a.dtype)
    if a.shape[-1] == 0:
        c.fill(0)
    elif c.size:
        _cublas.multiply(c.reshape(math.prod(lead), *c.shape[-2:]), _stack(xp, a, lead), _stack(xp, b, lead))
    return c


def _stack(xp: Any, x: Any, lead: tuple[int, ...]) -> Any:
    """`x` as matrices along one axis, or as one matrix if that is all there is; copied only if needed."""
    rows, columns = x.shape[-2:]
    if math.prod(x.shape[:-2]) == 1:
        return _operand(x.reshape(rows, columns))
    if x.shape[:-2] != lead:
        x = xp.broadcast_to(x, (*lead, rows, columns))
    # Reshaping a broadcast array copies it, which is what it takes to give each product its own operand.
    return _operand(x.reshape(math.prod(lead), rows, columns))


def _operand(x: Any) -> Any:
    return x if _cublas.is_operand(x) else x.copy()


def bias_relu(y: Any, b: Any, relu: bool) -> None:
    """Add b (columns,) or None to the rows of a C-contiguous matrix in place; with `relu` keep the positive part."""
    if (b is None and not relu) or not y.size:
        return
    rows, columns = y.shape
    biased = b is not None
    b = contiguous(b) if biased else y
    name, lanes = "bias_relu", 1
    width = 16 // y.itemsize
    if columns % width == 0 and y.data.ptr % 16 == 0 and b.data.ptr % 16 == 0:
        name, lanes = "bias_relu_packs", width
    step = max((_INDEX - 1) // columns, 1)
    for first in range(0, rows, step):
        part = y[first : first + step] if rows > step else y
        n = part.size // lanes
        _kernels.launch(name, y.dtype, blocks_for(n), 256, part, b, int(biased), n, columns // lanes, int(relu))


def column_sums(xp: Any, a: Any) -> Any:
    """The sums of the columns of a matrix: of a fixed number of chunks of rows, then of the chunks in order."""
    rows, columns = a.shape
    if not a.size:
        return xp.zeros(columns, a.dtype)
    a = contiguous(a)
    chunks = max(1, min(a.size // _CHUNK, _MOST_CHUNKS, rows))
    while True:
        chunk_rows = -(-rows // chunks)
        chunks = -(-rows // chunk_rows)
        sums = xp.empty((chunks, columns), a.dtype)
        grid = (-(-columns // _WIDTH), chunks)
        _kernels.launch("column_sums", a.dtype, grid, 256, a, rows, columns, chunk_rows, sums)
        if chunks == 1:
            return sums.reshape(columns)
        a, rows, chunks = sums, chunks, 1
