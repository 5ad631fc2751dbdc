"""Rows taken from a table, and their gradients added back, in plain NumPy."""

from __future__ import annotations

import numpy as np


class EmbeddingOps:
    """Look-up of rows by number."""

    def take(self, weight: np.ndarray, index: np.ndarray) -> np.ndarray:
        """``y[i] = weight[index[i]]``: weight (num, D), integer index (...), y (..., D)."""
        check_index("take", index, weight.shape[0])
        return weight[index]

    def embedding_backward(self, gy: np.ndarray, index: np.ndarray, num: int) -> np.ndarray:
        """The gradient of `take`: row k is the sum of ``gy[i]`` over all i with ``index[i] == k``.

        It is summed in the order of i. gy (*index, D), result (num, D).
        """
        check_index("embedding_backward", index, num)
        g = np.zeros((num, gy.shape[-1]), gy.dtype)
        np.add.at(g, index.reshape(-1), gy.reshape(index.size, gy.shape[-1]))
        return g


def check_index(owner: str, index: np.ndarray, num: int, name: str = "index") -> None:
    """IndexError unless `index` lies in [0, num): NumPy would count negatives from the end."""
    if index.size and (index.min() < 0 or index.max() >= num):
        raise IndexError(f"{owner}: expected {name} in [0, {num}), got values in [{index.min()}, {index.max()}]")
