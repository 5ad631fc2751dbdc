"""Matrix products in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np


class GemmOps:
    """Matrix products, and the fully connected layer that is one."""

    xp: Any
    relu: Any

    def contiguous(self, a: np.ndarray) -> np.ndarray:
        """`a` in C order in memory; itself if it is already."""
        return self.xp.ascontiguousarray(a) if a.ndim else a

    def matmul(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The product of matrices, or of stacks that broadcast; a vector is a row or a column."""
        with np.errstate(invalid="ignore", over="ignore"):
            return np.matmul(a, b)

    def linear(self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, relu: bool = False) -> np.ndarray:
        """``y = x w^T + b``, or with `relu` its positive part: x (..., I), w (O, I), b (O,) or None, y (..., O)."""
        rows = x.reshape(_rows(x.shape), x.shape[-1])
        y = self.matmul(rows, w.T)
        if b is not None:
            y += b
        y = y.reshape(*x.shape[:-1], w.shape[0])
        return self.relu(y) if relu else y

    def linear_backward(
        self, gy: np.ndarray, x: np.ndarray, w: np.ndarray, needs: tuple[bool, bool, bool]
    ) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
        """``gx = gy w,  gw = gy^T x,  gb = sum of the rows of gy``, where wanted."""
        n = _rows(x.shape)
        g = gy.reshape(n, gy.shape[-1])
        gx = gw = gb = None
        if needs[0]:
            gx = self.matmul(g, w).reshape(x.shape)
        if needs[1]:
            gw = self.matmul(g.T, x.reshape(n, x.shape[-1]))
        if needs[2]:
            gb = g.sum(axis=0)
        return gx, gw, gb


def _rows(shape: tuple[int, ...]) -> int:
    """Product of all dimensions but the last (reshape cannot infer it if the last is 0)."""
    n = 1
    for length in shape[:-1]:
        n *= length
    return n
